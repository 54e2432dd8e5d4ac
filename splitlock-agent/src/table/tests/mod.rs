//! The table's promises: every count once, no counter back, bounds held.

mod naming;

use std::collections::BTreeMap;

use splitlock_common::ledger::EVENT_SLOTS;

use super::{
    snapshot::{Fullness, ProcessRow, TrapCount, VmRow},
    *,
};
use crate::subjects::{
    cgroup::CgroupIdentity,
    identity::Identity,
    vmm::{Evidence, VmNaming, Vmm},
};

const RETENTION: Duration = Duration::from_secs(900);

fn table(processes: usize, vms: usize) -> Table {
    Table::new(Limits {
        processes,
        vms,
        workloads: 10,
        retention: RETENTION,
    })
}

fn key(tgid: u32) -> SubjectKey {
    SubjectKey {
        tgid,
        reserved: 0,
        start_ns: 10_000_000 * u64::from(tgid),
    }
}

fn entry(comm: &str, events: &[(Event, u64)]) -> TrapEntry {
    let mut counts = [0; EVENT_SLOTS];
    for (event, count) in events {
        counts[event.index()] = *count;
    }
    let mut name = [0; 16];
    name[..comm.len()].copy_from_slice(comm.as_bytes());
    TrapEntry {
        counts,
        delay_ns: [0; 2],
        first_ns: 1,
        last_ns: [1; 2],
        cgroup_id: 0,
        comm: name,
        record_window_ns: 0,
        record_window_count: 0,
    }
}

fn head() -> RowHead {
    RowHead {
        first_ns: 1,
        cgroup_id: 0,
        comm: *b"vmm\0\0\0\0\0\0\0\0\0\0\0\0\0",
    }
}

/// Asks nobody, and names all that are unnamed by their comm.
fn name_all(table: &mut Table) {
    for question in table.take_unnamed() {
        let mut identity = identity(question.subject.pid, &question.comm, None);
        identity.subject = question.subject;
        table.name(&identity);
    }
}

/// Answers a question about this subject.
fn name(table: &mut Table, identity: &Identity) {
    let asked = table.take_unnamed();
    assert!(asked.iter().any(|asked| asked.subject == identity.subject));
    table.name(identity);
}

fn processes(table: &mut Table) -> Vec<ProcessRow> {
    name_all(table);
    table.processes()
}

fn vms(table: &mut Table) -> Vec<VmRow> {
    name_all(table);
    table.vms()
}

const FATAL: Event = Event::UserSplitLockSigbus;

#[test]
fn a_process_shows_its_own_events_and_a_vm_its_guests() {
    let mut table = table(10, 10);
    let events = [
        (FATAL, 3),
        (Event::AlignmentCheck, 4),
        (Event::AcInjected, 5),
    ];
    assert!(table.read_trap(key(1), &entry("both", &events)));
    assert!(!table.read_trap(key(1), &entry("both", &events)));
    let processes = processes(&mut table);
    assert_eq!(processes.len(), 1);
    assert_eq!(
        processes[0].traps,
        [TrapCount::new(FATAL.lock().unwrap(), 3)]
    );
    assert_eq!(processes[0].alignment_checks, 4);
    let vms = vms(&mut table);
    assert_eq!(vms.len(), 1);
    assert_eq!(vms[0].ac_injected, 5);
    assert_eq!(vms[0].traps, []);
    assert_eq!(vms[0].id, "1-1");
}

#[test]
fn a_vm_that_only_exits_is_no_process() {
    let mut table = table(10, 10);
    let mut tally = ExitTally {
        isa: 2,
        ..ExitTally::default()
    };
    tally.exits[0x72] = 7;
    tally.userspace[2] = 8;
    tally.userspace[8] = 9;
    assert!(table.read_exits(key(1), &head(), tally));
    assert!(processes(&mut table).is_empty());
    let vms = vms(&mut table);
    assert_eq!(vms[0].vm, "vmm");
    assert_eq!(vms[0].exits, BTreeMap::from([("cpuid", 7)]));
    assert_eq!(
        vms[0].userspace_exits,
        BTreeMap::from([("io", 8), ("shutdown", 9)])
    );
}

#[test]
fn past_the_limit_locks_go_to_the_overflow_from_the_first_to_the_last() {
    let mut table = table(2, 10);
    let now = Instant::now();
    for tgid in 1..=5 {
        table.read_trap(key(tgid), &entry("p", &[(FATAL, 10)]));
    }
    assert_eq!(processes(&mut table).len(), 2);
    assert_eq!(table.overflow()["process"], 30);
    assert_eq!(table.tracked()["process"], Fullness { used: 2, limit: 2 });

    // One with a place ends and is forgotten: those in the overflow stay there.
    table.end(key(1).into(), now);
    table.expire(now + RETENTION);
    table.read_trap(key(5), &entry("p", &[(FATAL, 11)]));
    assert_eq!(processes(&mut table).len(), 1);
    assert_eq!(table.overflow()["process"], 31);

    // One in the overflow ends: its locks stay counted.
    table.end(key(5).into(), now);
    assert!(!table.knows(key(5).into()));
    assert_eq!(table.overflow()["process"], 31);

    // The free place is a newcomer's.
    table.read_trap(key(6), &entry("p", &[(FATAL, 1)]));
    assert_eq!(processes(&mut table).len(), 2);
    assert_eq!(table.overflow()["process"], 31);
}

#[test]
fn who_has_no_locks_yields_to_who_has() {
    let mut table = table(2, 10);
    let check = Event::AlignmentCheck;
    for tgid in 1..=3 {
        table.read_trap(key(tgid), &entry("check", &[(check, 10)]));
    }
    let pids = |table: &mut Table| -> Vec<u32> {
        processes(table).iter().map(|row| row.subject.pid).collect()
    };
    assert_eq!(pids(&mut table), [1, 2]);
    // The one that has ended goes first.
    table.end(key(2).into(), Instant::now());
    table.read_trap(key(4), &entry("lock", &[(FATAL, 1)]));
    assert_eq!(pids(&mut table), [1, 4]);
    table.read_trap(key(5), &entry("lock", &[(FATAL, 1)]));
    assert_eq!(pids(&mut table), [4, 5]);
    // Those with locks keep their places.
    table.read_trap(key(6), &entry("lock", &[(FATAL, 7)]));
    assert_eq!(pids(&mut table), [4, 5]);
    assert_eq!(table.overflow()["process"], 7);
    // Whoever has yielded asks again at its first lock, and then stays in the overflow.
    table.read_trap(key(1), &entry("check", &[(check, 10), (FATAL, 2)]));
    assert_eq!(table.overflow()["process"], 9);
    assert_eq!(table.tracked()["process"], Fullness { used: 2, limit: 2 });
    let later = Instant::now();
    table.end(key(4).into(), later);
    table.expire(later + RETENTION);
    table.read_trap(key(1), &entry("check", &[(check, 10), (FATAL, 3)]));
    assert_eq!(table.overflow()["process"], 10);
    assert_eq!(pids(&mut table), [5]);
    // One that only found no place for its checks gets one for its first lock.
    table.read_trap(key(3), &entry("check", &[(check, 11), (FATAL, 1)]));
    assert_eq!(pids(&mut table), [3, 5]);
    assert_eq!(table.overflow()["process"], 10);
}

#[test]
fn the_ended_without_locks_yield_to_any() {
    let mut table = table(2, 1);
    table.read_exits(key(1), &head(), ExitTally::default());
    table.read_exits(key(2), &head(), ExitTally::default());
    let pids =
        |table: &mut Table| -> Vec<u32> { vms(table).iter().map(|row| row.subject.pid).collect() };
    assert_eq!(pids(&mut table), [1]);
    table.end(key(1).into(), Instant::now());
    table.read_exits(key(3), &head(), ExitTally::default());
    assert_eq!(pids(&mut table), [3]);
}

#[test]
fn what_the_kernel_could_not_place_is_overflow_too() {
    let mut table = table(2, 2);
    let mut counters = HostCounters::default();
    counters.events[FATAL.index()] = 9;
    counters.unattributed[FATAL.index()] = 4;
    counters.unattributed[Event::GuestBusLockReported.index()] = 5;
    counters.unattributed[Event::AlignmentCheck.index()] = 6;
    counters.lost[Loss::TrapLedgerFull as usize] = 15;
    table.read_host(counters);
    table.add_lost(Loss::KernelLogOverrun, 2);
    assert_eq!(
        table.overflow(),
        BTreeMap::from([("process", 4), ("vm", 5), ("workload", 4)])
    );
    assert_eq!(table.lost()["trap_ledger_full"], 15);
    assert_eq!(table.lost()["kernel_log_overrun"], 2);
    let total: u64 = table.host_traps().iter().map(|trap| trap.count).sum();
    assert_eq!(total, 9);
}

#[test]
fn an_ended_subject_stays_for_the_retention_time_and_then_goes_whole() {
    let mut table = table(2, 2);
    let now = Instant::now();
    table.read_trap(key(1), &entry("p", &[(FATAL, 1), (Event::AcInjected, 1)]));
    table.end(key(1).into(), now);
    table.expire(now + RETENTION - Duration::from_secs(1));
    assert!(!processes(&mut table)[0].alive);
    assert!(!vms(&mut table)[0].alive);
    table.expire(now + RETENTION);
    assert!(processes(&mut table).is_empty() && vms(&mut table).is_empty());
    assert_eq!(table.tracked()["process"].used, 0);
    assert_eq!(table.tracked()["vm"].used, 0);
}

#[test]
fn a_reused_pid_with_the_same_comm_goes_on_from_the_old_value() {
    let mut table = table(3, 3);
    let now = Instant::now();
    let later = SubjectKey {
        start_ns: 99_000_000_000,
        ..key(1)
    };
    let sum = |table: &mut Table| -> u64 {
        processes(table)
            .iter()
            .map(|row| {
                row.traps.iter().map(|trap| trap.count).sum::<u64>()
                    + row
                        .carried
                        .as_ref()
                        .map_or(0, |carried| carried.events[FATAL.index()])
            })
            .sum()
    };
    table.read_trap(key(1), &entry("p", &[(FATAL, 5)]));
    table.end(key(1).into(), now);
    table.read_trap(later, &entry("p", &[(FATAL, 2)]));
    assert_eq!(processes(&mut table).len(), 2);
    assert_eq!(sum(&mut table), 7);
    table.expire(now + RETENTION);
    assert_eq!(processes(&mut table).len(), 1);
    assert_eq!(sum(&mut table), 7);
    table.end(later.into(), now + RETENTION);
    table.expire(now + 2 * RETENTION);
    assert!(processes(&mut table).is_empty());
}

#[test]
fn the_kernel_log_and_the_ledger_tell_of_one_subject() {
    let mut table = table(3, 3);
    let warned = Event::UserSplitLockWarned;
    assert!(table.count_event(key(1).into(), b"p", warned, 7));
    assert!(!table.count_event(key(1).into(), b"p", warned, 8));
    assert_eq!(table.key(key(1).into()), None);
    assert!(!table.read_trap(key(1), &entry("p", &[(Event::AlignmentCheck, 4)])));
    assert_eq!(table.key(key(1).into()), Some(key(1)));
    let processes = processes(&mut table);
    assert_eq!(processes.len(), 1);
    assert_eq!(
        processes[0].traps,
        [TrapCount::new(warned.lock().unwrap(), 2)]
    );
    assert_eq!(processes[0].alignment_checks, 4);
    assert_eq!(table.host_traps()[warned.index()].count, 2);
}

#[test]
fn a_place_in_the_ledger_found_after_the_end_is_news() {
    let mut table = table(3, 3);
    table.count_event(key(1).into(), b"p", Event::UserSplitLockWarned, 7);
    table.end(key(1).into(), Instant::now());
    let late = entry("p", &[(Event::AlignmentCheck, 4)]);
    assert!(table.read_trap(key(1), &late), "it must be freed");
    assert!(!table.read_trap(key(1), &late));
}

fn identity(tgid: u32, name: &str, uuid: Option<&str>) -> Identity {
    Identity {
        subject: key(tgid).into(),
        comm: "vmm".to_owned(),
        exe: Some("/usr/bin/vmm".to_owned()),
        command_line: None,
        cgroup: Some(CgroupIdentity {
            cgroup: "/system.slice/vmm.service".to_owned(),
            unit: Some("vmm.service".to_owned()),
            ..CgroupIdentity::default()
        }),
        vm: VmNaming {
            name: name.to_owned(),
            uuid: uuid.map(str::to_owned),
            vmm: Vmm::Qemu,
            evidence: Evidence::CommandLine,
        },
        is_vm: true,
        missing: vec![],
    }
}

const UUID: &str = "12345678-9abc-def0-1234-56789abcdef0";

fn tally(cpuid: u64) -> ExitTally {
    let mut tally = ExitTally {
        isa: 2,
        ..ExitTally::default()
    };
    tally.exits[0x72] = cpuid;
    tally
}

#[test]
fn one_that_was_taken_for_ended_goes_on_from_its_counts() {
    let mut table = table(10, 10);
    let sums = |table: &mut Table| {
        let process = processes(table);
        let vm = vms(table);
        let workload: u64 = table
            .workloads()
            .iter()
            .flat_map(|row| &row.traps)
            .map(|trap| trap.count)
            .sum();
        (process[0].traps[0].count, vm[0].exits["cpuid"], workload)
    };
    table.read_trap(key(1), &entry("p", &[(FATAL, 100)]));
    table.read_exits(key(1), &head(), tally(200));
    assert_eq!(sums(&mut table), (100, 200, 100));
    table.end(key(1).into(), Instant::now());
    // Its places in the ledgers were freed, and it gets others.
    assert!(
        table.read_trap(key(1), &entry("p", &[(FATAL, 1)])),
        "it is to be watched"
    );
    assert!(!table.read_exits(key(1), &head(), tally(2)));
    assert_eq!(sums(&mut table), (101, 202, 101));
    table.expire(Instant::now() + RETENTION);
    assert_eq!(sums(&mut table), (101, 202, 101), "it lives");
    table.end(key(1).into(), Instant::now());
    assert_eq!(sums(&mut table), (101, 202, 101));
}

#[test]
fn whoever_ended_and_yields_is_forgotten() {
    let mut table = table(10, 10);
    for tgid in 1..=1000 {
        table.read_trap(key(tgid), &entry("p", &[(Event::AlignmentCheck, 1)]));
        name_all(&mut table);
        table.end(key(tgid).into(), Instant::now());
    }
    assert_eq!(table.subject_count(), 10);
}

#[test]
fn an_idle_vm_yields_to_one_that_runs() {
    let mut table = table(10, 1);
    table.meet_vm(key(1).into(), b"idle");
    table.meet_vm(key(2).into(), b"idle too");
    let pids =
        |table: &mut Table| -> Vec<u32> { vms(table).iter().map(|row| row.subject.pid).collect() };
    assert_eq!(pids(&mut table), [1]);
    table.read_exits(key(3), &head(), tally(1));
    assert_eq!(pids(&mut table), [3]);
}

#[test]
fn host_traps_are_all_kinds_also_those_that_never_happened() {
    let traps = table(1, 1).host_traps();
    assert_eq!(traps.len(), 8);
    assert!(traps.iter().all(|trap| trap.count == 0));
}

#[test]
fn a_crowd_past_the_limit_leaves_no_trace_of_its_members() {
    let mut table = table(10, 0);
    for tgid in 1..=10_000 {
        table.read_trap(key(tgid), &entry("crowd", &[(Event::AlignmentCheck, 1)]));
        table.end(key(tgid).into(), Instant::now());
        name_all(&mut table);
    }
    assert_eq!(table.subject_count(), 10);
    assert!(table.ended.len() < 100, "{}", table.ended.len());
    table.expire(Instant::now() + RETENTION);
    assert_eq!((table.subject_count(), table.ended.len()), (0, 0));
}

#[test]
fn who_finds_no_place_is_counted_once_also_without_locks() {
    let mut table = table(1, 0);
    for locks in [0, 0, 5] {
        for tgid in [1, 2] {
            let events = [(Event::AlignmentCheck, 1), (FATAL, locks)];
            table.read_trap(key(tgid), &entry("crowd", &events));
        }
        name_all(&mut table);
    }
    let without = BTreeMap::from([("process", 1), ("vm", 0), ("workload", 0)]);
    assert_eq!(table.overflow_subjects(), without);
    assert_eq!(table.overflow()["process"], 5);
}
