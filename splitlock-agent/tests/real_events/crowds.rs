//! Crowds of processes that trap once and die: each is named, every lock is in a family, and what
//! they took goes back.

use std::{
    collections::BTreeMap,
    env, fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{
        Child, Event,
        crowd::{self, Each},
        trap_module::{Mode, set_mode},
    },
    requirements::{
        self,
        Requirement::{AlignmentChecks, Kvm, Root, TrapModule},
        missed,
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "crowds::each_of_ten_thousand_is_named_and_nothing_is_left",
        needs: &[Root, AlignmentChecks],
        run: each_of_ten_thousand_is_named_and_nothing_is_left,
    },
    Test {
        name: "crowds::vms_that_come_and_go_leave_nothing",
        needs: &[Root, Kvm],
        run: vms_that_come_and_go_leave_nothing,
    },
    Test {
        name: "crowds::past_the_limit_they_are_in_the_overflow",
        needs: &[Root, AlignmentChecks],
        run: past_the_limit_they_are_in_the_overflow,
    },
];

/// Those of locks, for the rig.
pub const LOCK_TESTS: &[Test] = &[
    Test {
        name: "crowds::every_lock_is_in_its_families",
        needs: &[Root, TrapModule],
        run: every_lock_is_in_its_families,
    },
    Test {
        name: "crowds::locks_past_the_limit_are_in_the_overflow",
        needs: &[Root, TrapModule],
        run: locks_past_the_limit_are_in_the_overflow,
    },
];

const CROWD: u32 = 10_000;
/// Where emulation makes each process take 10 ms and more.
const EMULATED_CROWD: u32 = 2000;

/// How many come in the tests of locks: `SPLITLOCK_CROWD`, else fewer under emulation.
fn locking_crowd() -> u32 {
    match env::var("SPLITLOCK_CROWD") {
        Ok(number) => number.parse().expect("SPLITLOCK_CROWD is a number"),
        Err(_) => EMULATED_CROWD,
    }
}

/// Many times as many as the limit, fewer under emulation. Every agent of the tests sees them, and
/// the one that is to name ten thousand has no room for many more.
fn crowd_past_limit() -> u32 {
    if requirements::in_rig() { 1000 } else { 4000 }
}

/// A host's VMs, fewer under emulation.
fn vm_crowd() -> u32 {
    if requirements::in_rig() { 100 } else { 500 }
}

/// A crowd takes seconds on an idle machine.
const RETENTION: Duration = Duration::from_secs(40);
const RETENTION_FLAG: &str = "40s";

/// The metrics after a crowd, none of which is forgotten by then.
#[track_caller]
fn within_retention(agent: &Agent, crowd: impl FnOnce()) -> Metrics {
    let start = Instant::now();
    crowd();
    let metrics = agent.metrics();
    let time = start.elapsed();
    assert!(
        time < RETENTION,
        "too slow a machine: the crowd took {time:?}"
    );
    metrics
}

/// As many as come within a child's time, also under emulation.
const BATCH: u32 = 5_000;

/// Makes a crowd; its comms begin with the maker's.
pub fn crowd(each: Each, maker: &str, count: u32) {
    for first in (0..count).step_by(BATCH as usize) {
        let count = BATCH.min(count - first);
        let mut child = Child::spawn(&Event::Crowd { each, first, count }, maker);
        assert_eq!(child.run().get("ended"), u64::from(count));
        child.end();
    }
}

/// What the agent holds for a crowd, beside what other tests that run meanwhile make.
#[derive(Debug)]
struct Held {
    subjects: u64,
    /// Of all tests.
    all_subjects: u64,
    /// Entries of a ledger.
    entries: u64,
    descriptors: u64,
    /// Of its own; the kernel's rows that it looked at stay mapped.
    memory: u64,
}

/// Bytes of a process's anonymous memory that are resident.
pub fn anonymous_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"))
        .expect("a kernel since 4.5");
    1024 * kilobytes.parse::<u64>().expect("a number")
}

impl Held {
    /// `kind` is a list of the snapshot, in which `name` begins with that of the crowd's maker.
    fn by(agent: &Agent, maker: &str, (kind, name): (&str, &str), ledger: &str) -> Self {
        let snapshot = agent.snapshot();
        let rows = |kind: &str| snapshot[kind].as_array().expect("a list").clone();
        let start = format!("{maker}-");
        let is_own = |row: &Value| {
            row[name]
                .as_str()
                .is_some_and(|name| name.starts_with(&start))
        };
        // An entry for each process, a row for each vCPU thread.
        let others: u64 = rows("processes")
            .iter()
            .chain(&rows("vms"))
            .filter(|row| !is_own(row) && row["alive"] == true)
            .map(|row| row["vcpus"].as_u64().unwrap_or(0).max(1))
            .sum();
        let used = snapshot["ledgers"][ledger]["used"].as_u64();
        let metrics = agent.metrics();
        let all_subjects = ["processes", "vms"].map(|kind| rows(kind).len() as u64);
        Self {
            all_subjects: all_subjects.iter().sum(),
            subjects: rows(kind).iter().filter(|row| is_own(row)).count() as u64,
            entries: used.expect("a number").saturating_sub(others),
            descriptors: metrics.count("process_open_fds").saturating_sub(others),
            memory: anonymous_memory(agent.pid()),
        }
    }

    fn by_processes(agent: &Agent) -> Self {
        Self::by(agent, "many", ("processes", "comm"), "traps")
    }

    fn by_vms(agent: &Agent) -> Self {
        Self::by(agent, "vmm", ("vms", "vm"), "exits")
    }

    /// Waits until no more is held than before a crowd. Memory is compared when the crowds of other
    /// tests have gone as well.
    #[track_caller]
    fn wait_for_return(before: &Self, crowded: &Self, held: impl Fn() -> Self) {
        let start = Instant::now();
        let after = loop {
            let held = held();
            if held.subjects == 0 && held.entries <= before.entries && held.all_subjects < 200 {
                break held;
            }
            assert!(start.elapsed() < 5 * RETENTION, "{held:?}");
            thread::sleep(Duration::from_millis(500));
        };
        eprintln!("held before: {before:?}, with the crowd: {crowded:?}, after it: {after:?}");
        assert!(after.descriptors <= before.descriptors + 8, "{after:?}");
        let grown = after.memory.saturating_sub(before.memory);
        // Those of other tests, with their sites and what is at them.
        let of_others = after.all_subjects * (32 << 10);
        assert!(
            grown < (4 << 20) + of_others,
            "{grown} bytes more than before: {after:?}"
        );
    }
}

/// The values of a family for a crowd, by comm; each comm has to be there once.
#[track_caller]
fn by_comm(metrics: &Metrics, family: &str, maker: &str) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    let start = format!("{maker}-");
    for (series, value) in metrics.family(family) {
        let comm = series
            .split(r#"comm=""#)
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .expect("a comm");
        // Other tests run at the same time.
        if !comm.starts_with(&start) {
            continue;
        }
        let before = values.insert(comm.to_owned(), value as u64);
        assert_eq!(before, None, "{comm} is there twice");
    }
    values
}

fn each_of_ten_thousand_is_named_and_nothing_is_left() {
    let agent = Agent::start(&["--limit.processes", "40000", "--retention", RETENTION_FLAG]);
    let before = Held::by_processes(&agent);
    let metrics = within_retention(&agent, || crowd(Each::AlignmentCheck, "many", CROWD));
    let counts = by_comm(&metrics, "splitlock_process_alignment_checks_total", "many");
    let wrong: Vec<u32> = (0..CROWD)
        .filter(|index| counts.get(&crowd::comm("many", *index)) != Some(&1))
        .collect();
    assert_eq!(wrong, [0; 0], "not counted once under their names");
    let named = by_comm(&metrics, "splitlock_process_info", "many");
    let unnamed: Vec<u32> = (0..CROWD)
        .filter(|index| !named.contains_key(&crowd::comm("many", *index)))
        .collect();
    assert_eq!(unnamed, [0; 0], "without a name");
    let crowded = Held::by_processes(&agent);
    Held::wait_for_return(&before, &crowded, || Held::by_processes(&agent));
}

fn vms_that_come_and_go_leave_nothing() {
    let agent = Agent::start(&["--retention", RETENTION_FLAG]);
    let before = Held::by_vms(&agent);
    within_retention(&agent, || crowd(Each::Vm, "vmm", vm_crowd()));
    let port_exits = |metrics: &Metrics| -> BTreeMap<String, u64> {
        let start = r#"splitlock_vm_userspace_exits_total{vm="vmm-"#;
        metrics
            .family("splitlock_vm_userspace_exits_total")
            .into_iter()
            .filter(|(series, _)| series.contains(r#"reason="io""#))
            .filter_map(|(series, value)| {
                let number = series.strip_prefix(start)?.split('"').next()?;
                Some((number.to_owned(), value as u64))
            })
            .collect()
    };
    // Their names may take longer than a scrape waits.
    let metrics = agent.wait_for("all VMs", |metrics| {
        let missed = missed(metrics, "kvm_userspace_exit");
        port_exits(metrics).len() as u64 + missed >= u64::from(vm_crowd())
    });
    let exits = port_exits(&metrics);
    assert!(exits.values().all(|count| *count == 1), "{exits:?}");
    let crowded = Held::by_vms(&agent);
    Held::wait_for_return(&before, &crowded, || Held::by_vms(&agent));
}

fn past_the_limit_they_are_in_the_overflow() {
    let agent = Agent::start(&["--limit.processes", "100"]);
    crowd(Each::AlignmentCheck, "more", 1000);
    let entries = r#"splitlock_ledger_entries{ledger="traps"}"#;
    agent.wait_for("their end", |metrics| metrics.count(entries) < 500);
    let before = anonymous_memory(agent.pid());
    crowd(Each::AlignmentCheck, "more", crowd_past_limit());
    let metrics = agent.wait_for("their end", |metrics| metrics.count(entries) < 500);
    let grown = anonymous_memory(agent.pid()).saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more for more of them");
    let full = r#"splitlock_lost_total{cause="trap_ledger_full"}"#;
    assert_eq!(metrics.count(full), 0);
    let family = "splitlock_process_alignment_checks_total";
    assert_eq!(metrics.family(family).len(), 100);
    let counts = by_comm(&metrics, family, "more");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for gauge in ["tracked_subjects", "tracked_subjects_limit"] {
        let series = format!(r#"splitlock_{gauge}{{kind="process"}}"#);
        assert_eq!(metrics.count(&series), 100, "{series}");
    }
}

/// The locks of a family's series together.
fn sum(metrics: &Metrics, family: &str) -> u64 {
    let values = metrics.family(family);
    values.values().map(|value| *value as u64).sum()
}

/// What a crowd of fatal split locks is in the families that sum them up, once all are named.
#[track_caller]
pub fn check_sums(agent: &Agent, count: u32) -> Metrics {
    let count = u64::from(count);
    let overflow = |metrics: &Metrics, kind: &str| {
        metrics.count(&format!(
            r#"splitlock_overflow_traps_total{{kind="{kind}"}}"#
        ))
    };
    let metrics = agent.wait_for("every lock in the workloads", |metrics| {
        sum(metrics, "splitlock_workload_traps_total") + overflow(metrics, "workload")
            == sum(metrics, "splitlock_host_traps_total")
    });
    let host = sum(&metrics, "splitlock_host_traps_total");
    assert!(host <= count && host + missed(&metrics, "handle_user_split_lock") >= count);
    let processes = sum(&metrics, "splitlock_process_traps_total");
    assert_eq!(processes + overflow(&metrics, "process"), host);
    metrics
}

fn every_lock_is_in_its_families() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = Agent::start(&["--limit.processes", "20000", "--limit.workloads", "20000"]);
    let count = locking_crowd();
    crowd(Each::SplitLock, "lock", count);
    let metrics = check_sums(&agent, count);
    for family in ["process", "workload"] {
        let counts = by_comm(&metrics, &format!("splitlock_{family}_traps_total"), "lock");
        assert!(
            counts.values().all(|count| *count == 1),
            "{family}: {counts:?}"
        );
        let absent: Vec<u32> = (0..count)
            .filter(|index| !counts.contains_key(&crowd::comm("lock", *index)))
            .collect();
        let missed = missed(&metrics, "handle_user_split_lock");
        assert!(
            absent.len() as u64 <= missed,
            "{family}: {absent:?}, {missed} missed"
        );
    }
}

fn locks_past_the_limit_are_in_the_overflow() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = Agent::start(&[]);
    let count = locking_crowd();
    // As many as there are places, and more.
    crowd(Each::SplitLock, "first", 1200);
    check_sums(&agent, 1200);
    let are_gone =
        |metrics: &Metrics| metrics.count(r#"splitlock_ledger_entries{ledger="traps"}"#) == 0;
    agent.wait_for("their end", are_gone);
    let before = anonymous_memory(agent.pid());
    crowd(Each::SplitLock, "lock", count);
    let metrics = check_sums(&agent, 1200 + count);
    // What a crowd took goes back in steps, the last of them at a scrape.
    agent.wait_for("their end", are_gone);
    agent.metrics();
    let after = anonymous_memory(agent.pid());
    eprintln!("{before} bytes of memory, {after} after {count} more");
    assert!(after < before + (3 << 20), "{before} bytes, then {after}");
    for kind in ["process", "workload"] {
        let named = metrics.family(&format!("splitlock_{kind}_traps_total"));
        assert_eq!(named.len(), 1000, "{kind}");
        let overflow = format!(r#"splitlock_overflow_traps_total{{kind="{kind}"}}"#);
        let host = sum(&metrics, "splitlock_host_traps_total");
        assert_eq!(metrics.count(&overflow), host - 1000, "{kind}");
    }
}
