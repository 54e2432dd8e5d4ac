//! The fleet: who offends, where, and which hosts would not tell.

use super::{
    colour::{self, ATTENTION, BAD, COUNTS, GOOD, MODE, ORIGIN, OUTCOME, PLAIN, TRAP},
    dashboard::{Dashboard, Row},
    links, offenders,
    panel::Panel,
    query::{Query, highest_rates, time_lost},
    table::{Column, Table},
    unit, variables,
};

/// The dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: links::FLEET,
        title: "Split locks / Fleet",
        description: "Split locks and bus locks of all hosts: who makes them, what the kernels did, \
                      and which hosts would not notice. Totals rest on the hosts' own counters, \
                      which are there from each agent's start.",
        from: "now-6h",
        variables: vec![
            variables::datasource(),
            variables::job(),
            variables::instance(),
        ],
        links: vec![links::to_hosts(), links::to_a_vm()],
        rows: vec![overview(), traps(), offending(), coverage(), agents()],
    }
}

fn overview() -> Row {
    Row {
        title: "Overview",
        panels: vec![
            Panel::stat(
                "Agents",
                "Agents that answered the last scrape.",
                unit::COUNT,
            )
            .query(Query::instant("sum(up{%host})")),
            Panel::stat(
                "Agents down",
                "Agents that did not answer the last scrape. Locks on their hosts are not counted.",
                unit::COUNT,
            )
            .query(Query::instant("count(up{%host} == 0) or vector(0)"))
            .zero_or(BAD),
            Panel::stat(
                "Blind to guests",
                "Hosts on which a guest's lock would not be noticed, or of which that is not known.",
                unit::COUNT,
            )
            .query(Query::instant(blind_to("guest")))
            .zero_or(ATTENTION),
            Panel::stat(
                "Blind to processes",
                "Hosts on which a process's lock would not be noticed, or of which that is not known.",
                unit::COUNT,
            )
            .query(Query::instant(blind_to("user")))
            .zero_or(ATTENTION),
            Panel::stat(
                "Traps",
                "Locks that the kernels trapped in the shown range. Where a hook counts a lower \
                 bound, this is one too.",
                unit::COUNT,
            )
            .query(Query::instant(
                "sum(increase(splitlock_host_traps_total{%host}[$__range]))",
            ))
            .decimals(0)
            .zero_or(ATTENTION),
            Panel::stat(
                "Hosts with traps",
                "Hosts that trapped at least one lock in the shown range.",
                unit::COUNT,
            )
            .query(Query::instant(
                "count(sum by (job, instance) (increase(splitlock_host_traps_total{%host}[$__range])) > 0)
                 or vector(0)",
            ))
            .zero_or(ATTENTION),
            Panel::stat(
                "Time lost",
                "For how long the kernels held offenders up in the shown range. What the locks \
                 themselves cost all others is not in it.",
                unit::SECONDS,
            )
            .query(time_lost())
            .steps(GOOD, &[(0.001, ATTENTION)]),
            Panel::stat(
                "Lossy agents",
                "Agents that in the shown range lost something that a count, a name or a delay \
                 rests on. Lost detail records are not in it.",
                unit::COUNT,
            )
            .query(Query::instant(format!(
                "count(sum by (job, instance) (increase({LOSSES}[$__range])) > 0) or vector(0)"
            )))
            .zero_or(ATTENTION),
        ],
    }
}

/// Losses but those of detail records, on which no count depends.
const LOSSES: &str = "splitlock_lost_total{%host, cause!~\"record_.*\"}";

/// Agents without this origin's `1`: the series is absent where the mode is unknown.
fn blind_to(origin: &str) -> String {
    format!(
        "count(splitlock_build_info{{%host}} unless on (job, instance) \
         (splitlock_host_sees{{%host, origin=\"{origin}\"}} == 1)) or vector(0)"
    )
}

fn traps() -> Row {
    Row {
        title: "Traps",
        panels: vec![
            Panel::stack(
                "Traps by outcome",
                "What the kernels did: let it go with a warning, sent SIGBUS, handed it to the VMM, \
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
                "Traps by mechanism",
                "split_lock: #AC, trapped before the lock happened. bus_lock: #DB or a VM exit, \
                 noticed after it.",
                unit::PER_SECOND,
            )
            .query(Query::range(
                "sum by (trap) (rate(splitlock_host_traps_total{%host}[$__rate_interval]))",
                "{{trap}}",
            ))
            .coloured_by(&TRAP)
            .size(8, 8),
            Panel::lines(
                "Hosts with the most traps",
                "The ten hosts that trapped most in the shown range. Click a line to see its host.",
                unit::PER_SECOND,
            )
            .query(Query::range(
                highest_rates(10, "instance", "splitlock_host_traps_total{%host}"),
                "{{instance}}",
            ))
            .link(links::series_to_host()),
            Panel::stack(
                "Time lost per second",
                "For how many seconds in each second the kernels held offenders up, summed over \
                 threads and hosts. Needs a hook on split_lock_warn.",
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
            .coloured_by(&ORIGIN),
        ],
    }
}

fn offending() -> Row {
    Row {
        title: "Offenders",
        panels: vec![
            offenders::vms("%host").size(24, 8),
            offenders::workloads_of_fleet("%host").size(24, 7),
            offenders::processes("%host").size(24, 8),
        ],
    }
}

fn coverage() -> Row {
    let blind = "(splitlock_build_info{%host} unless on (job, instance)
                  (sum by (job, instance) (splitlock_host_sees{%host}) == 2))";
    let of_blind = |expr: &str| {
        let expr = format!("{expr} and on (instance) max by (instance) {blind}");
        Query::column(expr).may_be_empty("no host is blind")
    };
    let sees = |origin: &str| {
        of_blind(&format!(
            "max by (instance) (splitlock_host_sees{{%host, origin=\"{origin}\"}})"
        ))
    };
    let yes_no = || colour::yes_no(("yes", GOOD), ("no", BAD));
    let table = Table::default()
        .label(Column::label("instance", "Host").link(links::row_to_host()))
        .label(Column::label("mode", "Mode").mapped(MODE.mappings()))
        .value(
            Column::unseen(),
            of_blind("max by (instance, mode) (splitlock_host_detection_mode{%host} == 1)"),
        )
        .value(
            Column::value("Sees processes", unit::NAME).mapped(yes_no()),
            sees("user"),
        )
        .value(
            Column::value("Sees guests", unit::NAME).mapped(yes_no()),
            sees("guest"),
        )
        .value(
            Column::value("Mitigation", unit::NAME)
                .mapped(colour::yes_no(("on", PLAIN), ("off", ATTENTION))),
            of_blind("max by (instance) (splitlock_host_mitigation_enabled{%host})"),
        )
        .value(
            Column::value("Changes in range", unit::COUNT).steps(PLAIN, &[(1.0, ATTENTION)]),
            of_blind(
                "sum by (instance) (increase(splitlock_host_detection_changes_total{%host}[$__range]))",
            ),
        )
        .sorted_by("Changes in range");
    Row {
        title: "Coverage",
        panels: vec![
            Panel::stack(
                "Hosts by detection mode",
                "The mode of the kernel's split-lock detection. off: nothing is trapped. \
                 unsupported: the CPU has no way to notice.",
                unit::COUNT,
            )
            .query(Query::range(
                "sum by (mode) (splitlock_host_detection_mode{%host})",
                "{{mode}}",
            ))
            .coloured_by(&MODE)
            .size(8, 8),
            Panel::lines(
                "Hosts that would notice",
                "Hosts on which a lock of each origin would be noticed, beside all agents that \
                 answer.",
                unit::COUNT,
            )
            .query(Query::range(
                "sum by (origin) (splitlock_host_sees{%host})",
                "{{origin}}",
            ))
            .query(Query::range("sum(up{%host})", "agents"))
            .coloured_by(&ORIGIN)
            .coloured("agents", PLAIN)
            .size(8, 8),
            Panel::bars(
                "Hooks by what they count",
                "Attached hooks. every_trap is exact. lower_bound: the kernel hides some, as warn \
                 mode does. first_per_thread: about one for each thread that ever trapped. none: a \
                 hook that brings details only.",
                unit::COUNT,
            )
            .query(
                Query::instant("count by (counts) (splitlock_probe_attached{%host} == 1)")
                    .named("{{counts}}"),
            )
            .coloured_by(&COUNTS),
            Panel::table(
                "Hosts with blind spots",
                "Hosts that would not notice each lock: of processes, of guests, or it is not known \
                 (empty). The mode can be changed at boot only (split_lock_detect=), the mitigation \
                 at any time.",
                table,
            ),
        ],
    }
}

fn agents() -> Row {
    let down = Table::default()
        .label(Column::label("instance", "Agent").link(links::row_to_host()))
        .label(Column::label("job", "Job"))
        .value(
            Column::unseen(),
            Query::column("max by (job, instance) (up{%host} == 0)")
                .may_be_empty("all agents answer"),
        );
    let grown = |counter: &str| format!("sum by (instance) (increase({counter}[$__range]))");
    let (missed, past_a_limit) = (
        "splitlock_probe_missed_total{%host}",
        "splitlock_overflow_traps_total{%host}",
    );
    let lossy = [LOSSES, missed, past_a_limit]
        .map(|counter| format!("{} > 0", grown(counter)))
        .join(" or ");
    let of_lossy = |counter: &str| {
        Query::column(format!("{} and on (instance) ({lossy})", grown(counter)))
            .may_be_empty("no agent lost anything in the shown range")
    };
    let losses = Table::default()
        .label(Column::label("instance", "Agent").link(links::row_to_host()))
        .value(
            Column::value("Lost", unit::COUNT).steps(PLAIN, &[(1.0, ATTENTION)]),
            of_lossy(LOSSES),
        )
        .value(
            Column::value("Skipped", unit::COUNT).steps(PLAIN, &[(1.0, ATTENTION)]),
            of_lossy(missed),
        )
        .value(
            Column::value("Past a limit", unit::COUNT).steps(PLAIN, &[(1.0, ATTENTION)]),
            of_lossy(past_a_limit),
        )
        .value(
            Column::value("Detail records", unit::COUNT),
            of_lossy("splitlock_lost_total{%host, cause=~\"record_.*\"}"),
        )
        .sorted_by("Lost");
    let versions = Table::default()
        .label(Column::label("version", "Version"))
        .label(Column::label("revision", "Revision"))
        .value(
            Column::value("Agents", unit::COUNT),
            Query::column("count by (version, revision) (splitlock_build_info{%host})"),
        )
        .sorted_by("Agents");
    Row {
        title: "Agents",
        panels: vec![
            Panel::table(
                "Which agents are down",
                "Agents that did not answer the last scrape. Of one that Prometheus no longer knows \
                 nothing is shown here: that is for an alert on its absence.",
                down,
            )
            .size(8, 8),
            Panel::stack(
                "Agents up and down",
                "How many answer their scrapes.",
                unit::COUNT,
            )
            .query(Query::range("sum(up{%host})", "up"))
            .query(Query::range("count(up{%host}) - sum(up{%host})", "down"))
            .coloured("up", GOOD)
            .coloured("down", BAD)
            .size(8, 8),
            Panel::table(
                "Versions",
                "What the agents were built from.",
                versions,
            )
            .size(8, 8),
            Panel::table(
                "Which agents lose what",
                "What agents lost in the shown range. Lost: a count, a name or a delay rests on it. \
                 Skipped: the kernel did not run a hook, as it was running on that CPU already. \
                 Past a limit: traps without a series of their own. Detail records: no count \
                 depends on them.",
                losses,
            )
            .size(12, 8),
            Panel::lines(
                "Fullest tables",
                "The ten agents and kinds of subjects that came nearest to their limits in the \
                 shown range. Past the limit a subject has no series of its own.",
                unit::SHARE,
            )
            .query(Query::range(
                "splitlock_tracked_subjects{%host} / splitlock_tracked_subjects_limit{%host}
                 and topk(10, splitlock_tracked_subjects{%host} @ end()
                              / splitlock_tracked_subjects_limit{%host} @ end())",
                "{{instance}} {{kind}}",
            ))
            .maximum(1)
            .link(links::series_to_host()),
        ],
    }
}
