//! Workloads: all processes of one comm in one unit, over all their lives. A service that crashes
//! and comes back under ever new pids is one series.

use std::collections::HashMap;

use splitlock_common::Event;

use super::snapshot::{Fullness, TrapCount, WorkloadRow};

/// What makes a workload one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// The group leader's comm.
    pub comm: String,
    /// The container's id, else the systemd unit, else nothing.
    pub unit: String,
}

#[derive(Debug)]
struct Workload {
    counts: [u64; Event::COUNT],
    /// Subjects in the table that count into it.
    members: usize,
    /// The clock of [`Workloads`] when it last counted.
    changed: u64,
}

/// A bounded set of workloads.
#[derive(Debug)]
pub struct Workloads {
    workloads: HashMap<WorkloadKey, Workload>,
    limit: usize,
    /// Rises with every change, so that the longest quiet one can be told.
    clock: u64,
}

impl Workloads {
    /// An empty set.
    pub fn new(limit: usize) -> Self {
        Self {
            workloads: HashMap::new(),
            limit,
            clock: 0,
        }
    }

    /// Takes a subject in. False if there is no place: its locks go to the overflow.
    ///
    /// At the limit the workload that has been quiet for longest makes room, if none of its
    /// subjects is in the table any more.
    pub fn join(&mut self, key: &WorkloadKey) -> bool {
        if !self.workloads.contains_key(key) && !self.make_room() {
            return false;
        }
        self.clock += 1;
        let workload = self.workloads.entry(key.clone()).or_insert(Workload {
            counts: [0; Event::COUNT],
            members: 0,
            changed: self.clock,
        });
        workload.members += 1;
        true
    }

    fn make_room(&mut self) -> bool {
        if self.workloads.len() < self.limit {
            return true;
        }
        let quiet = self
            .workloads
            .iter()
            .filter(|(_, workload)| workload.members == 0)
            .min_by_key(|(_, workload)| workload.changed)
            .map(|(key, _)| key.clone());
        quiet.is_some_and(|key| self.workloads.remove(&key).is_some())
    }

    /// A subject has left the table.
    pub fn leave(&mut self, key: &WorkloadKey) {
        if let Some(workload) = self.workloads.get_mut(key) {
            workload.members -= 1;
        }
    }

    /// Counts further events of one of its subjects.
    pub fn add(&mut self, key: &WorkloadKey, events: &[u64; Event::COUNT]) {
        if events.iter().all(|count| *count == 0) {
            return;
        }
        self.clock += 1;
        if let Some(workload) = self.workloads.get_mut(key) {
            workload.changed = self.clock;
            for (sum, count) in workload.counts.iter_mut().zip(events) {
                *sum += count;
            }
        }
    }

    /// All of them.
    pub fn rows(&self) -> Vec<WorkloadRow> {
        let mut rows: Vec<WorkloadRow> = self
            .workloads
            .iter()
            .map(|(key, workload)| WorkloadRow {
                comm: key.comm.clone(),
                unit: key.unit.clone(),
                traps: TrapCount::of_side(false, |event| workload.counts[event.index()]),
            })
            .collect();
        rows.sort_by(|a, b| (&a.comm, &a.unit).cmp(&(&b.comm, &b.unit)));
        rows
    }

    /// How full the set is.
    pub fn fullness(&self) -> Fullness {
        Fullness {
            used: self.workloads.len() as u64,
            limit: self.limit as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FATAL: Event = Event::UserSplitLockSigbus;

    fn key(comm: &str) -> WorkloadKey {
        WorkloadKey {
            comm: comm.to_owned(),
            unit: "web.service".to_owned(),
        }
    }

    fn events(count: u64) -> [u64; Event::COUNT] {
        let mut events = [0; Event::COUNT];
        events[FATAL.index()] = count;
        events
    }

    fn counts(workloads: &Workloads) -> Vec<(String, u64)> {
        workloads
            .rows()
            .into_iter()
            .map(|row| (row.comm, row.traps.iter().map(|trap| trap.count).sum()))
            .collect()
    }

    #[test]
    fn what_its_subjects_did_stays_after_them() {
        let mut workloads = Workloads::new(1);
        for _ in 0..3 {
            assert!(workloads.join(&key("a")));
            workloads.add(&key("a"), &events(2));
            workloads.leave(&key("a"));
        }
        assert_eq!(counts(&workloads), [("a".to_owned(), 6)]);
    }

    #[test]
    fn at_the_limit_the_longest_quiet_one_without_subjects_makes_room() {
        let mut workloads = Workloads::new(3);
        for comm in ["a", "b", "c"] {
            assert!(workloads.join(&key(comm)));
            workloads.add(&key(comm), &events(1));
        }
        assert!(!workloads.join(&key("d")), "all have subjects");
        workloads.leave(&key("b"));
        workloads.leave(&key("a"));
        // The longest quiet one still has a subject; of the others, `a` was heard of first.
        workloads.add(&key("b"), &events(1));
        assert!(workloads.join(&key("d")));
        let names: Vec<String> = counts(&workloads).into_iter().map(|row| row.0).collect();
        assert_eq!(names, ["b", "c", "d"]);
        assert_eq!(workloads.fullness().used, 3);
    }

    #[test]
    fn no_limit_is_too_small() {
        assert!(!Workloads::new(0).join(&key("a")));
    }
}
