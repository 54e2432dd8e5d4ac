//! Bounded tallies per subject. It is told what the ledgers and the kernel log hold, and shows it
//! as a snapshot's rows. Knows nothing of BPF or HTTP.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use splitlock_common::{
    Event, Loss,
    ledger::{HostCounters, SubjectKey, TrapEntry},
};

pub mod place;
pub mod snapshot;
pub mod stories;
pub mod subject;

use place::{Place, Places};
use snapshot::{Carried, Fullness, ProcessRow, TrapCount, VmRow};
use subject::Subject;

use crate::{
    intake::exit_rows::{ExitTally, RowHead},
    subjects::SubjectId,
};

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Processes with series of their own.
    pub processes: usize,
    /// VMs with series of their own.
    pub vms: usize,
    /// How long the series of an ended subject stay.
    pub retention: Duration,
}

/// Indices into the pairs of processes and VMs.
const PROCESS: usize = 0;
const VM: usize = 1;

/// The label values of `kind`.
const KINDS: [&str; 2] = ["process", "vm"];

/// All tallies.
#[derive(Debug)]
pub struct Table {
    retention: Duration,
    subjects: HashMap<SubjectId, Subject>,
    places: [Places; 2],
    host: HostCounters,
    /// Events that no ledger has.
    added: [u64; Event::COUNT],
    /// Losses that the agent itself saw.
    lost: [u64; Loss::COUNT],
    /// Locks of overflow subjects that have ended.
    overflow_ended: [u64; 2],
}

impl Table {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            retention: limits.retention,
            subjects: HashMap::new(),
            places: [Places::new(limits.processes), Places::new(limits.vms)],
            host: HostCounters::default(),
            added: [0; Event::COUNT],
            lost: [0; Loss::COUNT],
            overflow_ended: [0; 2],
        }
    }

    /// Takes over a reading of the host's counters.
    pub fn read_host(&mut self, counters: HostCounters) {
        self.host = counters;
    }

    /// Takes over a reading of a trap ledger entry. True if the subject is new.
    pub fn read_trap(&mut self, key: SubjectKey, entry: &TrapEntry) -> bool {
        self.read(
            key,
            || Subject::from_trap(key, entry),
            |subject| subject.read_trap(entry),
        )
    }

    /// Takes over a reading of a VM's exit ledger rows. True if the subject is new.
    pub fn read_exits(&mut self, key: SubjectKey, head: &RowHead, tally: ExitTally) -> bool {
        self.read(
            key,
            || Subject::from_row(key, head),
            |subject| subject.read_exits(tally),
        )
    }

    fn read(
        &mut self,
        key: SubjectKey,
        make: impl FnOnce() -> Subject,
        read: impl FnOnce(&mut Subject),
    ) -> bool {
        let (subject, mut is_new) = match self.subjects.entry(key.into()) {
            Entry::Occupied(occupied) => (occupied.into_mut(), false),
            Entry::Vacant(vacant) => (vacant.insert(make()), true),
        };
        if subject.key.is_none() {
            // The kernel log told of it first.
            subject.key = Some(key);
            is_new = subject.ended.is_none();
        }
        read(subject);
        self.place(key.into());
        is_new
    }

    /// Counts an event that no ledger has: one that the kernel log told, or a call whose return was
    /// not seen. True if the subject is new.
    pub fn count_event(&mut self, id: SubjectId, comm: &[u8], event: Event, boot_ns: u64) -> bool {
        self.added[event.index()] += 1;
        let (subject, is_new) = match self.subjects.entry(id) {
            Entry::Occupied(occupied) => (occupied.into_mut(), false),
            Entry::Vacant(vacant) => (vacant.insert(Subject::from_log(id, comm)), true),
        };
        subject.add_event(event, boot_ns);
        self.place(id);
        is_new
    }

    /// Counts losses that the agent itself saw.
    pub fn add_lost(&mut self, loss: Loss, count: u64) {
        self.lost[loss as usize] += count;
    }

    /// Gives a subject the places that it has earned.
    ///
    /// Whoever had no locks so far yields its place to one with locks, and if it has ended, to any:
    /// else anybody could fill the table with alignment checks before his locks, or with VMs that
    /// come and go. And whoever found no place asks again at its first lock. So no lock is ever in
    /// two series: one without a place when its first lock was seen stays in the overflow.
    fn place(&mut self, id: SubjectId) {
        for (kind, guest) in [(PROCESS, false), (VM, true)] {
            let Some(subject) = self.subjects.get_mut(&id) else {
                return;
            };
            if !subject.wants_place(guest) {
                continue;
            }
            let has_locks = subject.locks(guest) > 0;
            if self.places[kind].is_full()
                && let Some(yielding) = self
                    .subjects
                    .values_mut()
                    .filter(|other| other.place(guest) == Place::Held && other.locks(guest) == 0)
                    .filter(|other| has_locks || other.ended.is_some())
                    // One that has ended first.
                    .min_by_key(|other| (other.ended.is_none(), other.id))
            {
                yielding.set_place(guest, Place::Overflow);
                self.places[kind].take_back(Place::Held);
            }
            if let Some(subject) = self.subjects.get_mut(&id) {
                let place = self.places[kind].give();
                subject.set_place(guest, place);
            }
        }
    }

    /// A subject's identity in the ledgers, if it is known and still alive.
    pub fn living_key(&self, id: SubjectId) -> Option<SubjectKey> {
        let subject = self.subjects.get(&id)?;
        subject.key.filter(|_| subject.ended.is_none())
    }

    /// Whether a subject is known.
    pub fn knows(&self, id: SubjectId) -> bool {
        self.subjects.contains_key(&id)
    }

    /// A subject has ended and its last reading was taken. One without series is let go at once.
    pub fn end(&mut self, id: SubjectId, now: Instant) {
        let Some(subject) = self.subjects.get_mut(&id) else {
            return;
        };
        subject.ended.get_or_insert(now);
        if !subject.has_series()
            && let Some(subject) = self.subjects.remove(&id)
        {
            self.let_go(&subject);
        }
    }

    /// Whether a newcomer might find no place.
    pub fn is_full(&self) -> bool {
        self.places.iter().any(Places::is_full)
    }

    /// Lets go of subjects that ended the retention time ago.
    pub fn expire(&mut self, now: Instant) {
        let retention = self.retention;
        let over: Vec<Subject> = self
            .subjects
            .extract_if(|_, subject| {
                subject
                    .ended
                    .is_some_and(|ended| now.duration_since(ended) >= retention)
            })
            .map(|(_, subject)| subject)
            .collect();
        if over.is_empty() {
            return;
        }
        let mut carried: HashMap<(u32, &str), Carried> = HashMap::new();
        for subject in &over {
            self.let_go(subject);
            if subject.process == Place::Held {
                carried
                    .entry((subject.id.pid, &subject.comm))
                    .or_default()
                    .add(&subject.carry());
            }
        }
        for subject in self.subjects.values_mut() {
            if subject.process == Place::Held
                && let Some(carried) = carried.remove(&(subject.id.pid, subject.comm.as_str()))
            {
                subject.carried.add(&carried);
            }
        }
    }

    fn let_go(&mut self, subject: &Subject) {
        for (kind, place) in [(PROCESS, subject.process), (VM, subject.vm)] {
            self.places[kind].take_back(place);
            if place == Place::Overflow {
                self.overflow_ended[kind] += subject.locks(kind == VM);
            }
        }
    }

    /// Totals of the host, all kinds of locks.
    pub fn host_traps(&self) -> Vec<TrapCount> {
        Event::ALL
            .iter()
            .filter_map(|event| Some(TrapCount::new(event.lock()?, self.host_count(*event))))
            .collect()
    }

    /// How often an event happened on the host.
    pub fn host_count(&self, event: Event) -> u64 {
        self.host.events[event.index()] + self.added[event.index()]
    }

    /// The processes with series.
    pub fn processes(&self) -> Vec<ProcessRow> {
        let mut rows: Vec<ProcessRow> = self
            .subjects
            .values()
            .filter(|subject| subject.process == Place::Held)
            .map(Subject::process_row)
            .collect();
        rows.sort_by_key(|row| row.subject);
        rows
    }

    /// The VMs with series.
    pub fn vms(&self) -> Vec<VmRow> {
        let mut rows: Vec<VmRow> = self
            .subjects
            .values()
            .filter(|subject| subject.vm == Place::Held)
            .map(Subject::vm_row)
            .collect();
        rows.sort_by_key(|row| row.subject);
        rows
    }

    /// Locks of subjects without series, by kind of subject: past a limit here, or without a
    /// place in the kernel's ledger.
    pub fn overflow(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = self.overflow_ended;
        for subject in self.subjects.values() {
            for (kind, place) in [(PROCESS, subject.process), (VM, subject.vm)] {
                if place == Place::Overflow {
                    sums[kind] += subject.locks(kind == VM);
                }
            }
        }
        for event in Event::ALL.iter().filter(|event| event.is_lock()) {
            sums[usize::from(event.is_guest())] += self.host.unattributed[event.index()];
        }
        KINDS.into_iter().zip(sums).collect()
    }

    /// Losses by cause.
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        Loss::ALL
            .iter()
            .map(|loss| {
                let index = *loss as usize;
                (loss.name(), self.host.lost[index] + self.lost[index])
            })
            .collect()
    }

    /// How many subjects are tracked, by kind.
    pub fn tracked(&self) -> BTreeMap<&'static str, Fullness> {
        KINDS
            .into_iter()
            .zip(self.places)
            .map(|(kind, places)| {
                let fullness = Fullness {
                    used: places.used() as u64,
                    limit: places.limit() as u64,
                };
                (kind, fullness)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
