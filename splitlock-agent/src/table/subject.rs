//! What is known of one subject: its counts as a process and as a VM.

use std::time::Instant;

use splitlock_common::{
    Event,
    exit_reason::{exits_by_name, userspace_exits_by_name},
    ledger::{SubjectKey, TrapEntry, comm_bytes},
};

use super::{
    place::Place,
    snapshot::{Carried, ProcessRow, TrapCount, VmRow},
};
use crate::{
    host::clock::unix_seconds,
    intake::exit_rows::{ExitTally, RowHead},
    subjects::{SubjectId, names::printable},
};

/// Index of a process's own values in the pairs of the trap ledger.
const OWN: usize = 0;
/// Index of its guest's.
const GUEST: usize = 1;

/// One subject.
#[derive(Debug)]
pub struct Subject {
    /// Who it is.
    pub id: SubjectId,
    /// The group leader's comm when it was first heard of; it stays.
    pub comm: String,
    /// Its identity in the ledgers; `None` for one that only the kernel log told of.
    pub key: Option<SubjectKey>,
    /// When it ended.
    pub ended: Option<Instant>,
    /// Its place among the processes.
    pub process: Place,
    /// Its place among the VMs.
    pub vm: Place,
    /// What it took over from earlier processes of its pid and comm.
    pub carried: Carried,
    ledger: [u64; Event::COUNT],
    added: [u64; Event::COUNT],
    delay_ns: [u64; 2],
    last_ns: [u64; 2],
    exits: Option<ExitTally>,
    /// Whether it had locks when its place was last considered: own code, guest code.
    had_locks: [bool; 2],
}

impl Subject {
    fn new(id: SubjectId, comm: &[u8], key: Option<SubjectKey>) -> Self {
        Self {
            id,
            comm: printable(comm),
            key,
            ended: None,
            process: Place::None,
            vm: Place::None,
            carried: Carried::default(),
            ledger: [0; Event::COUNT],
            added: [0; Event::COUNT],
            delay_ns: [0; 2],
            last_ns: [0; 2],
            exits: None,
            had_locks: [false; 2],
        }
    }

    /// One that the trap ledger told of.
    pub fn from_trap(key: SubjectKey, entry: &TrapEntry) -> Self {
        Self::new(key.into(), comm_bytes(&entry.comm), Some(key))
    }

    /// One that the exit ledger told of.
    pub fn from_row(key: SubjectKey, head: &RowHead) -> Self {
        Self::new(key.into(), comm_bytes(&head.comm), Some(key))
    }

    /// One that the kernel log told of.
    pub fn from_log(id: SubjectId, comm: &[u8]) -> Self {
        Self::new(id, comm, None)
    }

    /// Takes over a reading of its trap ledger entry.
    pub fn read_trap(&mut self, entry: &TrapEntry) {
        for (count, read) in self.ledger.iter_mut().zip(entry.counts) {
            *count = read;
        }
        self.delay_ns = entry.delay_ns;
        self.last_ns = [
            self.last_ns[OWN].max(entry.last_ns[OWN]),
            self.last_ns[GUEST].max(entry.last_ns[GUEST]),
        ];
    }

    /// Takes over a reading of its exit ledger rows.
    pub fn read_exits(&mut self, tally: ExitTally) {
        self.exits = Some(tally);
    }

    /// Counts an event that no ledger has.
    pub fn add_event(&mut self, event: Event, boot_ns: u64) {
        self.added[event.index()] += 1;
        let side = usize::from(event.is_guest());
        self.last_ns[side] = self.last_ns[side].max(boot_ns);
    }

    /// How often an event happened.
    pub fn count(&self, event: Event) -> u64 {
        self.ledger[event.index()] + self.added[event.index()]
    }

    /// Whether it has done anything to be shown as a process, or as a VM.
    pub fn belongs(&self, guest: bool) -> bool {
        (guest && self.exits.is_some())
            || self.delay_ns[usize::from(guest)] > 0
            || Event::ALL
                .iter()
                .any(|event| event.is_guest() == guest && self.count(*event) > 0)
    }

    /// Its place among the processes, or among the VMs.
    pub const fn place(&self, guest: bool) -> Place {
        if guest { self.vm } else { self.process }
    }

    /// Gives it a place among the processes, or among the VMs.
    pub const fn set_place(&mut self, guest: bool, place: Place) {
        if guest {
            self.vm = place;
        } else {
            self.process = place;
        }
    }

    /// Whether it is to be given a place now: it has just earned one, or found none then and has
    /// its first locks only now.
    pub fn wants_place(&mut self, guest: bool) -> bool {
        let has_locks = self.locks(guest) > 0;
        let had_locks = std::mem::replace(&mut self.had_locks[usize::from(guest)], has_locks);
        match self.place(guest) {
            Place::None => self.belongs(guest),
            Place::Overflow => has_locks && !had_locks,
            Place::Held => false,
        }
    }

    /// Whether it is shown by series of its own.
    pub fn has_series(&self) -> bool {
        self.process == Place::Held || self.vm == Place::Held
    }

    /// Its trapped locks, as a process or as a VM.
    pub fn locks(&self, guest: bool) -> u64 {
        Event::ALL
            .iter()
            .filter(|event| event.is_lock() && event.is_guest() == guest)
            .map(|event| self.count(*event))
            .sum()
    }

    fn traps(&self, guest: bool) -> Vec<TrapCount> {
        Event::ALL
            .iter()
            .filter(|event| event.is_guest() == guest)
            .filter_map(|event| Some((event.lock()?, self.count(*event))))
            .filter(|(_, count)| *count > 0)
            .map(|(lock, count)| TrapCount::new(lock, count))
            .collect()
    }

    fn last_trap(&self, side: usize) -> Option<f64> {
        (self.last_ns[side] > 0).then(|| unix_seconds(self.last_ns[side]))
    }

    /// What a later process of its pid and comm goes on from.
    pub fn carry(&self) -> Carried {
        let mut carried = self.carried.clone();
        let mut own = Carried {
            events: [0; Event::COUNT],
            delay_ns: self.delay_ns[OWN],
        };
        for event in Event::ALL.iter().filter(|event| !event.is_guest()) {
            own.events[event.index()] = self.count(*event);
        }
        carried.add(&own);
        carried
    }

    /// It as a process.
    pub fn process_row(&self) -> ProcessRow {
        ProcessRow {
            subject: self.id,
            comm: self.comm.clone(),
            alive: self.ended.is_none(),
            traps: self.traps(false),
            alignment_checks: self.count(Event::AlignmentCheck),
            delay_ns: self.delay_ns[OWN],
            last_trap: self.last_trap(OWN),
            carried: self.carried.clone(),
        }
    }

    /// It as a VM.
    pub fn vm_row(&self) -> VmRow {
        let mut row = VmRow {
            subject: self.id,
            vm: self.comm.clone(),
            id: self.id.label(),
            alive: self.ended.is_none(),
            vcpus: 0,
            traps: self.traps(true),
            ac_injected: self.count(Event::AcInjected),
            delay_ns: self.delay_ns[GUEST],
            last_trap: self.last_trap(GUEST),
            exits: Default::default(),
            userspace_exits: Default::default(),
        };
        let Some(tally) = &self.exits else { return row };
        row.vcpus = tally.vcpus;
        let happened = |item: &(&str, u64)| item.1 > 0;
        row.exits = exits_by_name(tally.isa, &tally.exits)
            .filter(happened)
            .collect();
        row.userspace_exits = userspace_exits_by_name(&tally.userspace)
            .filter(happened)
            .collect();
        row
    }
}
