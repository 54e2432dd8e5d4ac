//! One host, or a few: what it would notice, who offends, and what its agent's numbers are worth.

use super::{
    colour::{ATTENTION, BAD, GOOD, MODE, ORIGIN, OUTCOME, PLAIN, TRAP, yes_no},
    dashboard::{Dashboard, Row},
    host_agent, links, offenders,
    panel::Panel,
    query::{Query, highest_rates, time_lost},
    unit, variables,
};

/// The dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: links::HOST,
        title: "Split locks / Host",
        description: "One host: its detection, its hooks and what their counts mean, who offends, \
                      and what the agent costs and loses.",
        from: "now-3h",
        variables: vec![
            variables::datasource(),
            variables::job(),
            variables::instance(),
            variables::vm(),
        ],
        links: vec![links::to_fleet(), links::to_vms()],
        rows: vec![
            overview(),
            traps(),
            offending(),
            exits(),
            detection(),
            host_agent::hooks(),
            host_agent::agent(),
        ],
    }
}

fn overview() -> Row {
    let sees = |title, description, origin| {
        let expr = format!("max by (instance) (splitlock_host_sees{{%host, origin=\"{origin}\"}})");
        Panel::stat(title, description, unit::NAME)
            .query(
                Query::instant(expr)
                    .named("{{instance}}")
                    .may_be_empty("absent where the mode of detection is unknown"),
            )
            .mapped(yes_no(("yes", GOOD), ("no", BAD)))
            .nothing("unknown")
    };
    Row {
        title: "Overview",
        panels: vec![
            Panel::stat(
                "Agent",
                "Whether the agent answered the last scrape.",
                unit::NAME,
            )
            .query(Query::instant("max by (instance) (up{%host})").named("{{instance}}"))
            .mapped(yes_no(("up", GOOD), ("down", BAD))),
            Panel::name(
                "Detection mode",
                "The mode of the kernel's split-lock detection, as the boot parameter \
                 split_lock_detect= sets it.",
            )
            .query(
                Query::instant("max by (mode) (splitlock_host_detection_mode{%host} == 1)")
                    .named("{{mode}}"),
            )
            .coloured_by(&MODE),
            sees(
                "Sees processes",
                "Whether a lock of a process's own code would be noticed here.",
                "user",
            ),
            sees(
                "Sees guests",
                "Whether a lock of a guest's code would be noticed here. AMD: only where a VMM asks \
                 for bus-lock exits.",
                "guest",
            ),
            Panel::stat(
                "Mitigation",
                "kernel.split_lock_mitigate: whether warn mode delays the offender. Off, it only \
                 logs.",
                unit::NAME,
            )
            .query(
                Query::instant("max by (instance) (splitlock_host_mitigation_enabled{%host})")
                    .named("{{instance}}")
                    .may_be_empty("kernels before 6.2 have no kernel.split_lock_mitigate"),
            )
            .mapped(yes_no(("on", GOOD), ("off", ATTENTION)))
            .nothing("not there"),
            Panel::stat(
                "Traps",
                "Locks that the kernel trapped in the shown range.",
                unit::COUNT,
            )
            .query(Query::instant(
                "sum(increase(splitlock_host_traps_total{%host}[$__range]))",
            ))
            .decimals(0)
            .zero_or(ATTENTION),
            Panel::stat(
                "Time lost",
                "For how long the kernel held offenders up in the shown range.",
                unit::SECONDS,
            )
            .query(time_lost())
            .steps(GOOD, &[(0.001, ATTENTION)]),
            Panel::name("Agent version", "What this agent was built from.").query(
                Query::instant("max by (version) (splitlock_build_info{%host})")
                    .named("{{version}}"),
            ),
        ],
    }
}

fn traps() -> Row {
    Row {
        title: "Traps",
        panels: vec![
            Panel::stack(
                "Traps by outcome",
                "What the kernel did: let it go with a warning, sent SIGBUS, handed it to the VMM, \
                 or throttled it.",
                unit::PER_SECOND,
            )
            .query(Query::range(
                "sum by (outcome) (rate(splitlock_host_traps_total{%host}[$__rate_interval]))",
                "{{outcome}}",
            ))
            .coloured_by(&OUTCOME)
            .size(8, 8),
            Panel::stack(
                "Traps by origin",
                "Whose code made the locks: processes' own, or code inside VMs.",
                unit::PER_SECOND,
            )
            .query(Query::range(
                "sum by (origin) (rate(splitlock_host_traps_total{%host}[$__rate_interval]))",
                "{{origin}}",
            ))
            .coloured_by(&ORIGIN)
            .size(8, 8),
            Panel::stack(
                "Time lost per second",
                "For how many seconds in each second the kernel held offenders up, summed over \
                 threads. Needs a hook on split_lock_warn.",
                unit::SECONDS,
            )
            .query(
                Query::range(
                    "sum(rate(splitlock_vm_delay_seconds_total{%host}[$__rate_interval]))",
                    "guest",
                )
                .may_be_empty("no guest was delayed"),
            )
            .query(
                Query::range(
                    "sum(rate(splitlock_process_delay_seconds_total{%host}[$__rate_interval]))",
                    "user",
                )
                .may_be_empty("no process was delayed"),
            )
            .coloured_by(&ORIGIN)
            .size(8, 8),
        ],
    }
}

fn offending() -> Row {
    Row {
        title: "Offenders",
        panels: vec![
            offenders::vms("%host, vm=~\"$vm\"").size(24, 8),
            offenders::workloads("%host").size(24, 7),
            offenders::processes("%host").size(24, 8),
            Panel::lines(
                "No locks, though they look like some",
                "Alignment checks that processes asked for by EFLAGS.AC, and #AC that KVM handed to \
                 guests. They are in no count of traps.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    "sum by (comm) (rate(splitlock_process_alignment_checks_total{%host}[$__rate_interval]))",
                    "alignment checks of {{comm}}",
                )
                .may_be_empty("hardly any process asks for alignment checks"),
            )
            .query(
                Query::range(
                    "sum by (vm) (rate(splitlock_vm_ac_injected_total{%host, vm=~\"$vm\"}[$__rate_interval]))",
                    "#AC injected into {{vm}}",
                )
                .may_be_empty("no guest was handed an #AC"),
            )
            .size(24, 6),
        ],
    }
}

fn exits() -> Row {
    let no_vm = "there is no VM here, or --kvm-exits is not all";
    Row {
        title: "VM exits",
        panels: vec![
            Panel::lines(
                "VM exits by reason",
                "Returns from guest code to KVM, of the chosen VMs: the twelve reasons that were \
                 most frequent in the shown range.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    highest_rates(12, "reason", "splitlock_vm_exits_total{%host, vm=~\"$vm\"}"),
                    "{{reason}}",
                )
                .may_be_empty(no_vm),
            ),
            Panel::lines(
                "Returns to the VMM by reason",
                "Returns from KVM to the VMM (KVM_EXIT_*), of the chosen VMs: they cost the most. \
                 restart: interrupted by a signal.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    highest_rates(
                        12,
                        "reason",
                        "splitlock_vm_userspace_exits_total{%host, vm=~\"$vm\"}",
                    ),
                    "{{reason}}",
                )
                .may_be_empty(no_vm),
            ),
            Panel::lines(
                "VMs with the most exits",
                "The ten of the chosen VMs that left guest code most often in the shown range.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    highest_rates(10, "vm, id", "splitlock_vm_exits_total{%host, vm=~\"$vm\"}"),
                    "{{vm}} {{id}}",
                )
                .may_be_empty(no_vm),
            )
            .size(24, 8),
        ],
    }
}

fn detection() -> Row {
    Row {
        title: "Detection",
        panels: vec![
            Panel::states(
                "Detection mode over time",
                "It changes with a boot; a change without one was made by hand.",
            )
            .query(Query::range(
                "max by (mode) (splitlock_host_detection_mode{%host} == 1)",
                "{{mode}}",
            ))
            .coloured_by(&MODE)
            .size(8, 7),
            Panel::bars(
                "CPU features",
                "Whether the kernel shows what can notice locks: split_lock_detect (#AC), \
                 bus_lock_detect (#DB).",
                unit::NAME,
            )
            .query(
                Query::instant("max by (feature) (splitlock_host_cpu_feature{%host})")
                    .named("{{feature}}"),
            )
            .maximum(1)
            .mapped(yes_no(("yes", GOOD), ("no", PLAIN)))
            .size(6, 7),
            Panel::lines(
                "Kernel log reports",
                "Messages of trapped locks. The kernel limits their rate, so they are fewer than \
                 traps.",
                unit::PER_SECOND,
            )
            .query(
                Query::range(
                    "sum by (trap) (rate(splitlock_kernel_log_reports_total{%host}[$__rate_interval]))",
                    "{{trap}}",
                )
                .may_be_empty("absent where the kernel log cannot be read"),
            )
            .coloured_by(&TRAP)
            .size(10, 7),
            Panel::name(
                "Known from",
                "How the mode is known. memory is the kernel's own variable; the others are \
                 conclusions.",
            )
            .query(
                Query::instant("max by (source) (splitlock_host_detection_source_info{%host})")
                    .named("{{source}}"),
            )
            .size(8, 4),
            Panel::stat(
                "Changes of mode or mitigation",
                "How often one was seen to change in the shown range.",
                unit::COUNT,
            )
            .query(Query::instant(
                "sum(increase(splitlock_host_detection_changes_total{%host}[$__range]))",
            ))
            .decimals(0)
            .zero_or(ATTENTION)
            .size(8, 4),
            Panel::stat(
                "Reports from before the agent",
                "What the kernel log held of trapped locks when the agent started.",
                unit::COUNT,
            )
            .query(
                Query::instant("sum by (trap) (splitlock_kernel_log_history_reports{%host})")
                    .named("{{trap}}")
                    .may_be_empty("absent where the kernel log cannot be read"),
            )
            .nothing("not read")
            .size(8, 4),
        ],
    }
}
