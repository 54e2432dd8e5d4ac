//! The host's dashboard, continued: the agent's hooks, what it loses and what it costs.

use super::{
    colour::{ATTENTION, BAD, COUNTS, GOOD, PLAIN, yes_no},
    dashboard::Row,
    links,
    panel::Panel,
    query::Query,
    table::{Column, Table},
    unit,
};

const NO_STATISTICS: &str = "the agent has it with --probe-statistics only";

/// The hooks and what their counts mean.
pub fn hooks() -> Row {
    let table = Table::default()
        .label(Column::label("instance", "Host").link(links::row_to_host()))
        .label(Column::label("probe", "Hook"))
        .label(Column::label("via", "Attached as"))
        .label(Column::label("counts", "Counts").mapped(COUNTS.mappings()))
        .value(
            Column::value("Attached", unit::NAME)
                .mapped(yes_no(("yes", GOOD), ("no", PLAIN))),
            Query::column("max by (instance, probe, via, counts) (splitlock_probe_attached{%host})"),
        )
        .value(
            Column::value("Skipped in range", unit::COUNT).steps(PLAIN, &[(1.0, ATTENTION)]),
            Query::column(
                "sum by (instance, probe) (increase(splitlock_probe_missed_total{%host}[$__range]))",
            )
            .may_be_empty("kernels before 5.12 do not tell"),
        )
        .sorted_by("Attached");
    Row {
        title: "Hooks",
        panels: vec![
            Panel::table(
                "Hooks and what their counts mean",
                "every trap: exact. lower bound: the kernel hides some, as warn mode leaves \
                 detection off for two jiffies after a trap. first per thread: about one for each \
                 thread that ever trapped. none: it brings details only, or is not attached. \
                 Skipped: the kernel did not run the hook, as it was running on that CPU already.",
                table,
            )
            .size(24, 9),
            Panel::lines(
                "CPU time of hooks",
                "The share of one CPU that the kernel spends in each hook's programs.",
                unit::SHARE,
            )
            .query(
                Query::range(
                    "sum by (probe) (rate(splitlock_probe_run_seconds_total{%host}[$__rate_interval]))",
                    "{{probe}}",
                )
                .may_be_empty(NO_STATISTICS),
            ),
            Panel::lines(
                "Time per run of a hook",
                "How long one run takes on average, with what the kernel's own measuring adds.",
                unit::SECONDS,
            )
            .query(
                Query::range(
                    "sum by (probe) (rate(splitlock_probe_run_seconds_total{%host}[$__rate_interval]))
                     / sum by (probe) (rate(splitlock_probe_runs_total{%host}[$__rate_interval]))",
                    "{{probe}}",
                )
                .may_be_empty(NO_STATISTICS),
            ),
        ],
    }
}

/// How full it is, what it loses, what it takes.
pub fn agent() -> Row {
    let nearly_full = |panel: Panel| {
        panel
            .maximum(1)
            .steps(GOOD, &[(0.8, ATTENTION), (0.95, BAD)])
    };
    Row {
        title: "Agent",
        panels: vec![
            nearly_full(Panel::bars(
                "Series of subjects in use",
                "Processes, workloads and VMs that have series of their own, of as many as the \
                 limits allow. At 100 % a further one is in no series of its own.",
                unit::SHARE,
            ))
            .query(
                Query::instant(
                    "max by (kind) (splitlock_tracked_subjects{%host}
                                    / splitlock_tracked_subjects_limit{%host})",
                )
                .named("{{kind}}"),
            )
            .size(6, 7),
            nearly_full(Panel::bars(
                "Kernel ledgers in use",
                "Entries of the ledgers in the kernel: subjects with traps, vCPU threads with exits. \
                 Full, events lose their subject, or exits are not counted.",
                unit::SHARE,
            ))
            .query(
                Query::instant(
                    "max by (ledger) (splitlock_ledger_entries{%host}
                                      / splitlock_ledger_entries_limit{%host})",
                )
                .named("{{ledger}}"),
            )
            .size(6, 7),
            Panel::lines(
                "Ring of detail records in use",
                "The share of the ring buffer that waits to be read. Full, details are lost, and no \
                 count.",
                unit::SHARE,
            )
            .query(
                Query::range(
                    "splitlock_record_ring_used_bytes{%host}
                     / splitlock_record_ring_size_bytes{%host}",
                    "{{instance}}",
                ),
            )
            .maximum(1)
            .size(6, 7),
            Panel::lines(
                "Traps past a limit",
                "Traps of subjects without series of their own. They are in the host's totals.",
                unit::PER_SECOND,
            )
            .query(Query::range(
                "sum by (kind) (rate(splitlock_overflow_traps_total{%host}[$__rate_interval]))",
                "{{kind}}",
            ))
            .size(6, 7),
            Panel::lines(
                "Losses by cause",
                "record_*: details, on which no count depends. identity_*: names. return_unseen: a \
                 delay. The others touch counts.",
                unit::PER_SECOND,
            )
            .query(Query::range(
                "sum by (cause) (rate(splitlock_lost_total{%host}[$__rate_interval]))",
                "{{cause}}",
            ))
            .size(8, 8),
            Panel::lines(
                "CPU time of the agent",
                "The share of one CPU that the agent's process takes; its hooks are not in it.",
                unit::SHARE,
            )
            .query(Query::range(
                "rate(process_cpu_seconds_total{%host}[$__rate_interval])",
                "{{instance}}",
            ))
            .size(8, 8),
            Panel::lines(
                "Memory of the agent",
                "Resident memory of the agent's process; the kernel's maps are not in it.",
                unit::BYTES,
            )
            .query(Query::range(
                "process_resident_memory_bytes{%host}",
                "{{instance}}",
            ))
            .size(8, 8),
        ],
    }
}
