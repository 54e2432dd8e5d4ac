//! What is known of one subject: its counts as a process and as a VM.

use std::{mem, sync::Arc, time::Instant};

use splitlock_common::{
    Event,
    exit_reason::{exits_by_name, userspace_exits_by_name},
    ledger::{SubjectKey, TrapEntry, comm_bytes},
};

use super::{
    place::{Claim, Place},
    snapshot::{ByReason, Carried, Owner, ProcessRow, TrapCount, VmRow},
    workloads::WorkloadKey,
};
use crate::{
    host::clock::{TICK_NS, unix_seconds},
    intake::exit_rows::{ExitTally, RowHead},
    subjects::{
        SubjectId,
        names::printable,
        vmm::{Evidence, Vmm},
    },
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
    pub comm: Arc<str>,
    /// Id of its cgroup in the v2 hierarchy when it was first heard of; 0 where nobody told it.
    pub cgroup_id: u64,
    /// Its identity in the ledgers; `None` for one that no ledger told of.
    pub key: Option<SubjectKey>,
    /// When it ended.
    pub ended: Option<Instant>,
    /// Its place among the processes.
    pub process: Place,
    /// Its place among the VMs.
    pub vm: Place,
    /// Where its locks count as a workload's.
    pub workload: Membership,
    /// Whose it is, once asked: as a process.
    pub owner: Option<Arc<Owner>>,
    /// What it is called as a VM, once asked.
    pub labels: Option<Box<VmLabels>>,
    /// What it took over from earlier subjects with its labels: as a process, as a VM.
    pub carried: [Option<Box<Carried>>; 2],
    /// Whether somebody was asked what it is called: as a process, as a VM.
    pub asked: [bool; 2],
    /// Whether it was seen to have a VM, be it one that has not run yet.
    pub has_vm: bool,
    ledger: [u64; Event::COUNT],
    /// What no ledger has, and what its earlier entries had.
    added: [u64; Event::COUNT],
    /// What its workload has been told of.
    settled: [u64; Event::COUNT],
    delay_ns: [u64; 2],
    /// Of earlier entries.
    past_delay_ns: [u64; 2],
    last_ns: [u64; 2],
    /// What its present entry said of delays and last traps.
    last_entry: [[u64; 2]; 2],
    exits: Option<Box<ExitTally>>,
    /// Of earlier rows.
    past_exits: Option<Box<ExitTally>>,
    /// Whether it had locks when its place was last considered: own code, guest code.
    had_locks: [bool; 2],
}

/// Where a subject's own locks count as a workload's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Membership {
    /// It has no locks, or nobody has said whose it is.
    #[default]
    None,
    /// In this one.
    Member(WorkloadKey),
    /// In the overflow, as there was no place for its workload.
    Overflow,
}

/// What a VM is called.
#[derive(Clone, Debug)]
pub struct VmLabels {
    /// Its name.
    pub name: String,
    /// Its unique id.
    pub id: String,
    /// What runs it.
    pub vmm: Vmm,
    /// Where its name is from.
    pub named_by: Evidence,
    /// Whose its VMM is.
    pub owner: Arc<Owner>,
}

impl Subject {
    fn new(id: SubjectId, comm: &[u8], cgroup_id: u64, key: Option<SubjectKey>) -> Self {
        Self {
            id,
            comm: printable(comm).into(),
            cgroup_id,
            key,
            ended: None,
            process: Place::None,
            vm: Place::None,
            workload: Membership::None,
            owner: None,
            labels: None,
            carried: Default::default(),
            asked: [false; 2],
            has_vm: false,
            ledger: [0; Event::COUNT],
            added: [0; Event::COUNT],
            settled: [0; Event::COUNT],
            delay_ns: [0; 2],
            past_delay_ns: [0; 2],
            last_ns: [0; 2],
            last_entry: [[0; 2]; 2],
            exits: None,
            past_exits: None,
            had_locks: [false; 2],
        }
    }

    /// One that the trap ledger told of.
    pub fn from_trap(key: SubjectKey, entry: &TrapEntry) -> Self {
        let comm = comm_bytes(&entry.comm);
        Self::new(key.into(), comm, entry.cgroup_id, Some(key))
    }

    /// One that the exit ledger told of.
    pub fn from_row(key: SubjectKey, head: &RowHead) -> Self {
        let comm = comm_bytes(&head.comm);
        Self::new(key.into(), comm, head.cgroup_id, Some(key))
    }

    /// One that no ledger told of, but the kernel log or KVM.
    pub fn outside_ledgers(id: SubjectId, comm: &[u8]) -> Self {
        Self::new(id, comm, 0, None)
    }

    /// Takes over a reading of its trap ledger entry. False if it says what it said before.
    pub fn read_trap(&mut self, entry: &TrapEntry) -> bool {
        let times = [entry.delay_ns, entry.last_ns];
        if self.ledger == entry.counts[..Event::COUNT] && self.last_entry == times {
            return false;
        }
        self.last_entry = times;
        for (count, read) in self.ledger.iter_mut().zip(entry.counts) {
            *count = read;
        }
        for (delay, (past, read)) in self
            .delay_ns
            .iter_mut()
            .zip(self.past_delay_ns.iter().zip(entry.delay_ns))
        {
            *delay = past + read;
        }
        self.last_ns = [
            self.last_ns[OWN].max(entry.last_ns[OWN]),
            self.last_ns[GUEST].max(entry.last_ns[GUEST]),
        ];
        true
    }

    /// Takes over a reading of its exit ledger rows. True if it had none before.
    pub fn read_exits(&mut self, mut tally: ExitTally) -> bool {
        if let Some(past) = &self.past_exits {
            tally.add(past);
        }
        self.exits.replace(Box::new(tally)).is_none()
    }

    /// Its places in the ledgers were freed: if it counts again, then from 0 and on top of this.
    pub fn leave_ledgers(&mut self) {
        for (past, count) in self.added.iter_mut().zip(&mut self.ledger) {
            *past += mem::take(count);
        }
        self.last_entry = [[0; 2]; 2];
        self.past_delay_ns = self.delay_ns;
        self.past_exits.clone_from(&self.exits);
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

    /// Whether anything was counted for it, as a process or as a VM.
    pub fn has_counts(&self, guest: bool) -> bool {
        (guest && self.exits.is_some())
            || self.delay_ns[usize::from(guest)] > 0
            || Event::ALL
                .iter()
                .any(|event| event.is_guest() == guest && self.count(*event) > 0)
    }

    /// Whether it is one to be shown as a process, or as a VM.
    pub fn belongs(&self, guest: bool) -> bool {
        (guest && self.has_vm) || self.has_counts(guest)
    }

    /// Whether nobody has said yet what it is called as a process, or as a VM, that it is.
    pub fn is_unnamed(&self, guest: bool) -> bool {
        let unnamed = if guest {
            self.labels.is_none()
        } else {
            self.owner.is_none()
        };
        unnamed && self.belongs(guest)
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
        let had_locks = mem::replace(&mut self.had_locks[usize::from(guest)], has_locks);
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

    /// How good a claim it has to a place.
    pub fn claim(&self, guest: bool) -> Claim {
        if self.shown_locks(guest) > 0 {
            Claim::Locks
        } else if self.ended.is_some() {
            Claim::Ended
        } else if self.has_counts(guest) {
            Claim::Counts
        } else {
            Claim::Nothing
        }
    }

    /// The locks that its series show: its own, and those that were left to it.
    pub fn shown_locks(&self, guest: bool) -> u64 {
        let left = self.carried[usize::from(guest)]
            .as_deref()
            .map_or(0, |carried| {
                let locks = Event::ALL.iter().filter(|event| event.is_lock());
                locks.map(|event| carried.events[event.index()]).sum()
            });
        self.locks(guest) + left
    }

    /// The locks of its own code that its workload has not been told of.
    pub fn settle(&mut self) -> [u64; Event::COUNT] {
        let mut news = [0; Event::COUNT];
        for event in Event::ALL {
            if event.is_lock() && !event.is_guest() {
                let count = self.count(event);
                news[event.index()] = count.saturating_sub(self.settled[event.index()]);
                self.settled[event.index()] = count;
            }
        }
        news
    }

    fn last_trap(&self, side: usize) -> Option<f64> {
        (self.last_ns[side] > 0).then(|| unix_seconds(self.last_ns[side]))
    }

    fn started_at(&self) -> f64 {
        unix_seconds(self.id.start_ticks * TICK_NS)
    }

    /// Takes over what an earlier subject with its labels left: as a process, or as a VM.
    pub fn inherit(&mut self, guest: bool, left: &Carried) {
        self.carried[usize::from(guest)]
            .get_or_insert_default()
            .add(left);
    }

    /// What a later subject with its labels goes on from: as a process, or as a VM.
    pub fn carry(&self, guest: bool) -> Carried {
        let side = usize::from(guest);
        let mut own = Carried {
            delay_ns: self.delay_ns[side],
            ..Carried::default()
        };
        for event in Event::ALL.iter().filter(|event| event.is_guest() == guest) {
            own.events[event.index()] = self.count(*event);
        }
        if guest {
            (own.exits, own.userspace_exits) = self.exits_by_reason();
        }
        if let Some(carried) = &self.carried[side] {
            own.add(carried);
        }
        own
    }

    /// It as a process.
    pub fn process_row(&self) -> ProcessRow {
        ProcessRow {
            subject: self.id,
            comm: Arc::clone(&self.comm),
            owner: self.owner.clone().unwrap_or_default(),
            started_at: self.started_at(),
            alive: self.ended.is_none(),
            traps: TrapCount::of_side(false, |event| self.count(event)),
            alignment_checks: self.count(Event::AlignmentCheck),
            delay_ns: self.delay_ns[OWN],
            last_trap: self.last_trap(OWN),
            sites: vec![],
            carried: self.carried[OWN].clone(),
        }
    }

    /// It as a VM.
    pub fn vm_row(&self) -> VmRow {
        let labels = self.labels.as_deref().cloned().unwrap_or_else(|| VmLabels {
            name: self.comm.to_string(),
            id: self.id.label(),
            vmm: Vmm::Other,
            named_by: Evidence::Comm,
            owner: Arc::default(),
        });
        let (exits, userspace_exits) = self.exits_by_reason();
        VmRow {
            subject: self.id,
            vm: labels.name,
            id: labels.id,
            vmm: labels.vmm,
            named_by: labels.named_by,
            owner: labels.owner,
            started_at: self.started_at(),
            alive: self.ended.is_none(),
            vcpus: self.exits.as_ref().map_or(0, |tally| tally.vcpus),
            vcpu_threads: self
                .exits
                .as_ref()
                .map(|tally| tally.threads.clone())
                .unwrap_or_default(),
            traps: TrapCount::of_side(true, |event| self.count(event)),
            ac_injected: self.count(Event::AcInjected),
            delay_ns: self.delay_ns[GUEST],
            last_trap: self.last_trap(GUEST),
            exits,
            userspace_exits,
            sites: vec![],
            carried: self.carried[GUEST].clone(),
        }
    }

    /// VM exits and returns to the VMM, those that happened.
    fn exits_by_reason(&self) -> (ByReason, ByReason) {
        let Some(tally) = &self.exits else {
            return Default::default();
        };
        let happened = |item: &(&str, u64)| item.1 > 0;
        (
            exits_by_name(tally.isa, &tally.exits)
                .filter(happened)
                .collect(),
            userspace_exits_by_name(&tally.userspace)
                .filter(happened)
                .collect(),
        )
    }
}
