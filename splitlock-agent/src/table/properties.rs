//! What holds whatever happens: every lock is once in each family that sums locks up, no counter goes
//! back, no limit is passed.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use splitlock_common::ledger::EVENT_SLOTS;

use super::*;
use crate::subjects::{
    identity::Identity,
    vmm::{Evidence, VmNaming, Vmm},
};

const PROCESSES: usize = 3;
const WORKLOADS: usize = 2;
const RETENTION: Duration = Duration::from_secs(100);
const FATAL: Event = Event::UserSplitLockSigbus;

#[derive(Clone, Debug)]
enum Step {
    /// A subject's entry was read: how many more locks and alignment checks it has.
    Read(u32, u64, u64),
    /// The answers came about all subjects that were asked for.
    Name,
    End(u32),
    /// Seconds go by.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..12_u32, 0..3_u64, 0..2_u64).prop_map(|(pid, locks, checks)| Step::Read(pid, locks, checks)),
        3 => Just(Step::Name),
        2 => (1..12_u32).prop_map(Step::End),
        1 => (0..150_u64).prop_map(Step::Wait),
    ]
}

/// The world as it is: each pid's current subject and what it has done.
#[derive(Default)]
struct World {
    lives: BTreeMap<u32, (SubjectKey, u64, u64)>,
    births: u64,
    locks: u64,
}

impl World {
    fn read(&mut self, table: &mut Table, pid: u32, locks: u64, checks: u64) {
        self.births += 1;
        let births = self.births;
        let (key, all_locks, all_checks) = self.lives.entry(pid).or_insert_with(|| {
            let key = SubjectKey {
                tgid: pid,
                reserved: 0,
                start_ns: births * 10_000_000,
            };
            (key, 0, 0)
        });
        *all_locks += locks;
        *all_checks += checks;
        self.locks += locks;
        let mut counts = [0; EVENT_SLOTS];
        counts[FATAL.index()] = *all_locks;
        counts[Event::AlignmentCheck.index()] = *all_checks;
        let entry = TrapEntry {
            counts,
            delay_ns: [0; 2],
            first_ns: 1,
            last_ns: [1; 2],
            cgroup_id: 0,
            comm: comm(pid),
            record_window_ns: 0,
            record_window_count: 0,
        };
        table.read_trap(*key, &entry);
    }
}

/// Few names, so that workloads have several members.
fn comm(pid: u32) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[0] = b'a' + (pid % 4) as u8;
    comm
}

fn name(table: &mut Table) {
    for question in table.take_unnamed() {
        table.name(&Identity {
            subject: question.subject,
            comm: question.comm.clone(),
            exe: None,
            command_line: None,
            cgroup: None,
            vm: VmNaming {
                name: question.comm,
                uuid: None,
                vmm: Vmm::Other,
                evidence: Evidence::Comm,
            },
            is_vm: question.is_vm,
            missing: vec![],
        });
    }
}

/// The process series, by their labels.
fn series(table: &Table) -> BTreeMap<(String, u32), u64> {
    let mut series = BTreeMap::new();
    for row in table.processes() {
        let own: u64 = row.traps.iter().map(|trap| trap.count).sum();
        *series
            .entry((row.comm.to_string(), row.subject.pid))
            .or_default() += own
            + row
                .carried
                .map_or(0, |carried| carried.events[FATAL.index()]);
    }
    series
}

fn check(table: &Table, world: &World, before: &BTreeMap<(String, u32), u64>) {
    for (labels, count) in series(table) {
        let old = before.get(&labels).copied().unwrap_or(0);
        assert!(count >= old, "{labels:?} went back from {old} to {count}");
    }
    let held = |guest: bool| {
        let subjects = table.subjects.values();
        subjects
            .filter(|subject| subject.place(guest) == Place::Held)
            .count()
    };
    let fullness = table.tracked()["process"];
    assert_eq!(fullness.used, held(false) as u64);
    assert!(fullness.used <= PROCESSES as u64);
    assert!(table.tracked()["workload"].used <= WORKLOADS as u64);
    // Whoever has ended and shows nothing is not kept, but for its name.
    for subject in table.subjects.values() {
        assert!(subject.ended.is_none() || subject.has_series() || subject.is_unnamed(false));
    }
    // With all named, every lock is in the workloads, whoever made it and whatever became of him.
    if table
        .subjects
        .values()
        .all(|subject| !subject.is_unnamed(false))
    {
        let workloads: u64 = table
            .workloads()
            .iter()
            .flat_map(|row| &row.traps)
            .map(|trap| trap.count)
            .sum();
        let made_room = world.locks - table.overflow()["workload"] - workloads;
        assert!(
            made_room == 0 || table.tracked()["workload"].used == WORKLOADS as u64,
            "{made_room} locks are in no workload"
        );
    }
}

proptest! {
    #[test]
    fn every_lock_is_counted_once(steps in vec(step(), 1..60)) {
        let mut now = Instant::now();
        let mut world = World::default();
        let mut table = Table::new(Limits {
            processes: PROCESSES,
            vms: 1,
            workloads: WORKLOADS,
            retention: RETENTION,
        });
        // Locks of processes whose series have ended.
        let mut retired = 0;
        for step in steps {
            let before = series(&table);
            let shown = |table: &Table| -> u64 {
                let held = table.subjects.values().filter(|subject| subject.process == Place::Held);
                held.map(|subject| subject.shown_locks(false))
                    .sum::<u64>()
            };
            match step {
                Step::Read(pid, locks, checks) => world.read(&mut table, pid, locks, checks),
                Step::Name => name(&mut table),
                Step::End(pid) => {
                    if let Some((key, ..)) = world.lives.remove(&pid) {
                        table.end(key.into(), now);
                    }
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    let before = shown(&table);
                    table.expire(now);
                    retired += before - shown(&table);
                }
            }
            check(&table, &world, &before);
            prop_assert_eq!(shown(&table) + table.overflow()["process"] + retired, world.locks);
        }
    }
}
