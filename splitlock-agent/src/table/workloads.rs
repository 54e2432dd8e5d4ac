//! Workloads: all processes of one comm in one unit, over all their lives. A service that crashes
//! and comes back under ever new pids is one series.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use splitlock_common::Event;

use super::snapshot::{Fullness, TrapCount, WorkloadRow};

/// What makes a workload one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// The group leader's comm.
    pub comm: Arc<str>,
    /// The container's id, else the systemd unit, else nothing.
    pub unit: Arc<str>,
}

#[derive(Debug)]
struct Workload {
    counts: [u64; Event::COUNT],
    /// Subjects in the table that count into it.
    members: usize,
    /// When it last counted.
    changed: Instant,
}

/// A bounded set of workloads.
#[derive(Debug)]
pub struct Workloads {
    workloads: HashMap<WorkloadKey, Workload>,
    limit: usize,
    /// How long one has to be quiet before it makes room.
    rest: Duration,
}

impl Workloads {
    /// An empty set. A workload has to be quiet for the time `rest` before it makes room.
    pub fn new(limit: usize, rest: Duration) -> Self {
        Self {
            workloads: HashMap::new(),
            limit,
            rest,
        }
    }

    /// Takes a subject in, and gives the key to be kept, which shares its texts with the set's. `None`
    /// if there is no place: its locks go to the overflow.
    ///
    /// At the limit the workload that has been quiet for longest makes room, if that is long enough
    /// for its last counts to have been seen, and none of its subjects is in the table any more.
    pub fn join(&mut self, key: WorkloadKey, now: Instant) -> Option<WorkloadKey> {
        let known = self.workloads.get_key_value(&key);
        let key = match known.map(|(known, _)| known.clone()) {
            Some(known) => known,
            None if self.make_room(now) => key,
            None => return None,
        };
        let workload = self.workloads.entry(key.clone()).or_insert(Workload {
            counts: [0; Event::COUNT],
            members: 0,
            changed: now,
        });
        workload.members += 1;
        Some(key)
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.workloads.len() < self.limit {
            return true;
        }
        let quiet = self
            .workloads
            .iter()
            .filter(|(_, workload)| workload.members == 0)
            .filter(|(_, workload)| now.duration_since(workload.changed) >= self.rest)
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
    pub fn add(&mut self, key: &WorkloadKey, events: &[u64; Event::COUNT], now: Instant) {
        if events.iter().all(|count| *count == 0) {
            return;
        }
        if let Some(workload) = self.workloads.get_mut(key) {
            workload.changed = now;
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
                comm: Arc::clone(&key.comm),
                unit: Arc::clone(&key.unit),
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
            comm: comm.into(),
            unit: "web.service".into(),
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
            .map(|row| {
                (
                    row.comm.to_string(),
                    row.traps.iter().map(|trap| trap.count).sum(),
                )
            })
            .collect()
    }

    const REST: Duration = Duration::from_secs(900);

    #[test]
    fn what_its_subjects_did_stays_after_them() {
        let mut workloads = Workloads::new(1, REST);
        let now = Instant::now();
        for _ in 0..3 {
            assert!(workloads.join(key("a"), now).is_some());
            workloads.add(&key("a"), &events(2), now);
            workloads.leave(&key("a"));
        }
        assert_eq!(counts(&workloads), [("a".to_owned(), 6)]);
    }

    #[test]
    fn at_the_limit_the_longest_quiet_one_without_subjects_makes_room() {
        let mut workloads = Workloads::new(3, REST);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for comm in ["a", "b", "c"] {
            assert!(workloads.join(key(comm), start).is_some());
            workloads.add(&key(comm), &events(1), start);
        }
        assert!(
            workloads.join(key("d"), after(5000)).is_none(),
            "all have subjects"
        );
        workloads.leave(&key("b"));
        workloads.leave(&key("a"));
        // `c` has been as quiet, but still has a subject.
        workloads.add(&key("b"), &events(1), after(10));
        assert!(
            workloads.join(key("d"), after(899)).is_none(),
            "none has rested"
        );
        assert!(workloads.join(key("d"), after(900)).is_some());
        let names: Vec<String> = counts(&workloads).into_iter().map(|row| row.0).collect();
        assert_eq!(names, ["b", "c", "d"]);
        assert_eq!(workloads.fullness().used, 3);
    }

    #[test]
    fn no_limit_is_too_small() {
        let mut workloads = Workloads::new(0, REST);
        assert!(workloads.join(key("a"), Instant::now()).is_none());
    }
}
