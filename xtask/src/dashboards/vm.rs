//! One VM, followed by its id from host to host.

use super::{
    colour::{ATTENTION, BAD, OUTCOME, PLAIN, TRAP},
    dashboard::{Dashboard, Row},
    links,
    panel::Panel,
    query::{BORN_IN_RANGE, Query, grown, highest_rates},
    table::{Column, Table},
    unit, variables,
};

const NO_TRAPS: &str = "this VM's guest made no lock that was trapped";
const NO_DELAY: &str = "the kernel did not delay this VM";
const NO_EXITS: &str = "the agent runs with --kvm-exits=locks or off, or the kernel tells no exits";

/// The dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: links::VM,
        title: "Split locks / VM",
        description: "One VM on all the hosts that it was on: its locks, what the kernel did, how \
                      long that held it up, its exits, and who it is.",
        from: "now-6h",
        variables: vec![
            variables::datasource(),
            variables::job(),
            variables::instance(),
            variables::vm(),
            variables::id(),
        ],
        links: vec![links::to_fleet(), links::to_hosts()],
        rows: vec![overview(), traps(), exits(), identity()],
    }
}

fn overview() -> Row {
    let traps = "splitlock_vm_traps_total{%vm}";
    let killed = "splitlock_vm_traps_total{%vm, outcome=\"sigbus\"}";
    let delay = "splitlock_vm_delay_seconds_total{%vm}";
    let injected = "splitlock_vm_ac_injected_total{%vm}";
    let of = |counter: &str| {
        Query::instant(format!("sum({}) or vector(0)", grown(counter))).bare_counters(BORN_IN_RANGE)
    };
    Row {
        title: "Overview",
        panels: vec![
            Panel::name(
                "Runs on",
                "The host that has it now. The one that it left stays for the agent's retention time, 15 \
                 minutes.",
            )
            .query(
                Query::instant("max by (instance) (splitlock_vm_info{%vm})")
                    .named("{{instance}}")
                    .may_be_empty("it has ended"),
            )
            .nothing("ended")
            .link(links::series_to_host())
            .size(6, 4),
            Panel::stat(
                "Traps",
                "Locks of its guest that were trapped in the shown range, its first one included.",
                unit::COUNT,
            )
            .query(of(traps))
            .decimals(0)
            .zero_or(ATTENTION),
            Panel::stat(
                "SIGBUS",
                "How often its VMM was signalled in the shown range: without a handler the VM is \
                 dead.",
                unit::COUNT,
            )
            .query(of(killed))
            .decimals(0)
            .zero_or(BAD),
            Panel::stat(
                "Time lost",
                "For how long the kernel held its vCPUs up in the shown range.",
                unit::SECONDS,
            )
            .query(of(delay))
            .steps(PLAIN, &[(0.001, ATTENTION)]),
            Panel::stat(
                "Last trap",
                "When the last lock of its guest was trapped.",
                unit::AGO,
            )
            .query(
                // Grafana's times are in milliseconds.
                Query::instant(
                    "max(max_over_time(splitlock_vm_last_trap_timestamp_seconds{%vm}[$__range])) * 1000",
                )
                .may_be_empty(NO_TRAPS),
            )
            .nothing("never"),
            Panel::stat(
                "#AC injected",
                "Alignment-check exceptions that KVM handed to the guest in the shown range: the \
                 guest's own matter, and no trap of the host.",
                unit::COUNT,
            )
            .query(of(injected))
            .decimals(0),
            Panel::name("VMM", "What runs it.")
                .query(
                    Query::instant("max by (vmm) (splitlock_vm_info{%vm})")
                        .named("{{vmm}}")
                        .may_be_empty("it has ended"),
                )
                .nothing("ended"),
        ],
    }
}

fn traps() -> Row {
    Row {
        title: "Traps",
        panels: vec![
            Panel::stack(
                "Traps by outcome",
                "What the kernels did. The first trap ever is not in a rate: see the counts so far.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    "sum by (outcome) (rate(splitlock_vm_traps_total{%vm}[$__rate_interval]))",
                    "{{outcome}}",
                )
                .may_be_empty(NO_TRAPS),
            )
            .coloured_by(&OUTCOME)
            .size(8, 8),
            Panel::lines(
                "Counts so far",
                "Each agent's count since it first saw this VM, with the very first trap. It begins \
                 anew on another host, and when the VM comes back after the agent's retention time.",
                unit::COUNT,
            )
            .query(
                Query::range(
                    "sum by (instance) (splitlock_vm_traps_total{%vm})",
                    "{{instance}}",
                )
                .bare_counters("a rate cannot show the first trap")
                .may_be_empty(NO_TRAPS),
            )
            .link(links::series_to_host())
            .size(8, 8),
            Panel::lines(
                "Time lost per second",
                "For how many seconds in each second the kernel held its vCPUs up, summed over \
                 vCPUs.",
                unit::SECONDS,
            )
            .query(
                Query::range(
                    "sum by (instance) (rate(splitlock_vm_delay_seconds_total{%vm}[$__rate_interval]))",
                    "{{instance}}",
                )
                .may_be_empty(NO_DELAY),
            )
            .link(links::series_to_host())
            .size(8, 8),
            Panel::stack(
                "Traps by host",
                "Where its locks were trapped: a VM that migrates brings its locks along.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    "sum by (instance) (rate(splitlock_vm_traps_total{%vm}[$__rate_interval]))",
                    "{{instance}}",
                )
                .may_be_empty(NO_TRAPS),
            )
            .link(links::series_to_host())
            .size(8, 8),
            Panel::stack(
                "Traps by mechanism",
                "split_lock: #AC, trapped before the lock happened. bus_lock: a VM exit, noticed \
                 after it.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    "sum by (trap) (rate(splitlock_vm_traps_total{%vm}[$__rate_interval]))",
                    "{{trap}}",
                )
                .may_be_empty(NO_TRAPS),
            )
            .coloured_by(&TRAP)
            .size(8, 8),
            Panel::lines(
                "#AC injected per second",
                "Alignment-check exceptions that KVM handed to the guest. They are no locks that \
                 the host handled.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    "sum by (instance) (rate(splitlock_vm_ac_injected_total{%vm}[$__rate_interval]))",
                    "{{instance}}",
                )
                .may_be_empty("KVM handed this guest no #AC"),
            )
            .size(8, 8),
        ],
    }
}

fn exits() -> Row {
    Row {
        title: "Exits",
        panels: vec![
            Panel::lines(
                "VM exits by reason",
                "Returns from guest code to KVM: the fifteen reasons that were most frequent in the \
                 shown range.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    highest_rates(15, "reason", "splitlock_vm_exits_total{%vm}"),
                    "{{reason}}",
                )
                .may_be_empty(NO_EXITS),
            )
            .size(12, 9),
            Panel::lines(
                "Returns to the VMM by reason",
                "Returns from KVM to the VMM (KVM_EXIT_*). x86_bus_lock: a bus lock that the VMM \
                 was told of. restart: interrupted by a signal.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    highest_rates(15, "reason", "splitlock_vm_userspace_exits_total{%vm}"),
                    "{{reason}}",
                )
                .may_be_empty(NO_EXITS),
            )
            .size(12, 9),
        ],
    }
}

fn identity() -> Row {
    let table = Table::default()
        .label(Column::label("instance", "Host").link(links::row_to_host()))
        .label(Column::label("vm", "VM"))
        .label(Column::label("id", "Id").width(290))
        .label(Column::label("vmm", "VMM").width(110))
        .label(Column::label("pid", "Pid").width(90))
        .label(Column::label("cgroup", "Cgroup"))
        .label(Column::label("container_id", "Container"))
        .label(Column::label("pod_uid", "Pod uid"))
        .value(
            Column::unseen(),
            Query::column(
                "max by (instance, vm, id, vmm, pid, cgroup, container_id, pod_uid)
                 (last_over_time(splitlock_vm_info{%vm}[$__range]))",
            ),
        );
    Row {
        title: "Identity",
        panels: vec![
            Panel::states(
                "Hosts over time",
                "Which host had it when: a migration shows as a change of lane. The lane of the host \
                 that it left goes on for the agent's retention time, 15 minutes.",
            )
            .query(Query::range(
                "max by (instance) (splitlock_vm_info{%vm})",
                "{{instance}}",
            ))
            .link(links::series_to_host())
            .size(24, 6),
            Panel::table(
                "Who it is",
                "All that it was in the shown range. The labels join other exporters: id is the \
                 UUID of libvirt and OpenStack, pod_uid is uid of kube-state-metrics, container_id \
                 its container_id, cgroup is id of cAdvisor. docs/operations.md has the queries.",
                table,
            )
            .size(24, 7),
        ],
    }
}
