//! Tables of who trapped most in the shown range; the same on the fleet's dashboard and the host's.

use super::{
    colour::{ATTENTION, BAD, PLAIN},
    links,
    panel::Panel,
    query::{BORN_IN_RANGE, Query, grown},
    table::{Column, Table},
    unit,
};

const NOBODY: &str = "nobody trapped in the shown range";
const SO_FAR: &str = "the column says what has been counted so far";
const NO_DELAY: &str = "the kernel delays nobody without the mitigation, and without a hook on \
                        split_lock_warn delays are not seen";

/// How many rows a table has at most.
const ROWS: u32 = 25;

/// VMs; `matchers` is `%host` or narrower.
pub fn vms(matchers: &str) -> Panel {
    let by = "instance, vm, id";
    let ranking = Ranking::of(by, &format!("splitlock_vm_traps_total{{{matchers}}}"));
    let table = Table::default()
        .label(Column::label("vm", "VM").link(links::row_to_vm()))
        .label(Column::label("instance", "Host").link(links::row_to_host()))
        .label(
            Column::label("id", "Id")
                .width(290)
                .link(links::row_to_vm()),
        )
        .value(traps_column(), ranking.traps())
        .value(
            Column::value("SIGBUS", unit::COUNT)
                .steps(PLAIN, &[(1.0, BAD)])
                .width(90),
            ranking.grown(&format!(
                "splitlock_vm_traps_total{{{matchers}, outcome=\"sigbus\"}}"
            )),
        )
        .value(
            Column::value("Delayed", unit::SECONDS).width(110),
            ranking
                .grown(&format!("splitlock_vm_delay_seconds_total{{{matchers}}}"))
                .may_be_empty(NO_DELAY),
        )
        .value(
            so_far_column(),
            ranking.so_far(&format!("splitlock_vm_traps_total{{{matchers}}}")),
        )
        .value(
            last_column(),
            ranking.last(&format!(
                "splitlock_vm_last_trap_timestamp_seconds{{{matchers}}}"
            )),
        )
        .sorted_by(TRAPS);
    Panel::table(
        "Top offending VMs",
        "VMs whose guest code made locks that were trapped in the shown range. SIGBUS: their VMM \
         was signalled, and is dead unless it has a handler. Delayed: how long the kernel held \
         vCPUs up. Click a VM to see it on all its hosts.",
        table,
    )
}

/// Processes.
pub fn processes(matchers: &str) -> Panel {
    let by = "instance, comm, pid";
    let traps = format!("splitlock_process_traps_total{{{matchers}}}");
    let ranking = Ranking::of(by, &traps);
    let info = format!(
        "max by ({by}, unit, exe) (splitlock_process_info{{{matchers}}}) and on ({by}) {}",
        ranking.top
    );
    let table = Table::default()
        .label(Column::label("comm", "Process"))
        .label(Column::label("pid", "Pid").width(90))
        .label(Column::label("instance", "Host").link(links::row_to_host()))
        .label(Column::label("unit", "Unit"))
        .label(Column::label("exe", "Executable"))
        .value(traps_column(), ranking.traps())
        .value(
            Column::value("Delayed", unit::SECONDS).width(110),
            ranking
                .grown(&format!(
                    "splitlock_process_delay_seconds_total{{{matchers}}}"
                ))
                .may_be_empty(NO_DELAY),
        )
        .value(so_far_column(), ranking.so_far(&traps))
        .value(
            last_column(),
            ranking.last(&format!(
                "splitlock_process_last_trap_timestamp_seconds{{{matchers}}}"
            )),
        )
        .value(
            Column::unseen(),
            Query::column(info)
                .bare_counters(BORN_IN_RANGE)
                .may_be_empty(NOBODY),
        )
        .sorted_by(TRAPS);
    Panel::table(
        "Top offending processes",
        "Processes whose own code made locks that were trapped in the shown range. A process that \
         died is here until the agent's retention time has passed; its workload stays.",
        table,
    )
}

/// Workloads of a host.
pub fn workloads(matchers: &str) -> Panel {
    let by = "instance, comm, unit";
    let traps = format!("splitlock_workload_traps_total{{{matchers}}}");
    let ranking = Ranking::of(by, &traps);
    let table = Table::default()
        .label(Column::label("comm", "Workload"))
        .label(Column::label("unit", "Unit or container"))
        .label(Column::label("instance", "Host").link(links::row_to_host()))
        .value(traps_column(), ranking.traps())
        .value(so_far_column(), ranking.so_far(&traps))
        .sorted_by(TRAPS);
    Panel::table(
        "Top offending workloads",
        "All processes of one name in one unit or container, over all their lives: a service that \
         traps once, dies and comes back adds up here.",
        table,
    )
}

/// Workloads of the fleet: a bad release is on many hosts at once.
pub fn workloads_of_fleet(matchers: &str) -> Panel {
    let by = "comm, unit";
    let traps = format!("splitlock_workload_traps_total{{{matchers}}}");
    let ranking = Ranking::of(by, &traps);
    let hosts = format!(
        "count by ({by}) (sum by (instance, {by}) ({}) > 0) and on ({by}) {}",
        grown(&traps),
        ranking.top
    );
    let table = Table::default()
        .label(Column::label("comm", "Workload"))
        .label(Column::label("unit", "Unit or container"))
        .value(
            Column::value("Hosts", unit::COUNT).width(80),
            Query::column(hosts)
                .bare_counters(BORN_IN_RANGE)
                .may_be_empty(NOBODY),
        )
        .value(traps_column(), ranking.traps())
        .value(so_far_column(), ranking.so_far(&traps))
        .sorted_by(TRAPS);
    Panel::table(
        "Top offending workloads",
        "All processes of one name in one unit or container, on all hosts and over all their \
         lives. Many hosts at once: a release brought it.",
        table,
    )
}

const TRAPS: &str = "Traps in range";

fn traps_column() -> Column {
    Column::value(TRAPS, unit::COUNT)
        .steps(PLAIN, &[(1.0, ATTENTION)])
        .width(130)
}

fn so_far_column() -> Column {
    Column::value("So far", unit::COUNT).width(100)
}

fn last_column() -> Column {
    Column::value("Last trap", unit::AGO).width(140)
}

/// Who is in the table. Each column asks for those only: a fleet's worth of rows is no table.
struct Ranking {
    by: &'static str,
    top: String,
}

impl Ranking {
    fn of(by: &'static str, counter: &str) -> Self {
        let top = format!("topk({ROWS}, sum by ({by}) ({}) > 0)", grown(counter));
        Self { by, top }
    }

    fn traps(&self) -> Query {
        Query::column(&self.top)
            .bare_counters(BORN_IN_RANGE)
            .may_be_empty(NOBODY)
    }

    fn grown(&self, counter: &str) -> Query {
        self.only(&format!("sum by ({}) ({})", self.by, grown(counter)))
    }

    fn so_far(&self, counter: &str) -> Query {
        self.only(&format!("sum by ({}) ({counter})", self.by))
            .bare_counters(SO_FAR)
    }

    fn last(&self, timestamp: &str) -> Query {
        // Grafana's times are in milliseconds.
        self.only(&format!("max by ({}) ({timestamp}) * 1000", self.by))
    }

    fn only(&self, expr: &str) -> Query {
        let Self { by, top } = self;
        Query::column(format!("{expr} and on ({by}) {top}"))
            .bare_counters(BORN_IN_RANGE)
            .may_be_empty(NOBODY)
    }
}
