//! Bounded tallies per subject. It is told what the ledgers and the kernel log hold, and shows it
//! as a snapshot's rows. Knows nothing of BPF or HTTP.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, btree_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use splitlock_common::{
    Event, Loss,
    ledger::{HostCounters, SubjectKey, TrapEntry},
};

pub mod naming;
pub mod place;
pub mod rows;
pub mod sites;
pub mod snapshot;
pub mod stories;
pub mod subject;
mod vm_ids;
pub mod workloads;

use place::{Place, Places};
use snapshot::Carried;
use subject::{Membership, Subject};
use vm_ids::VmIds;
use workloads::Workloads;

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
    /// Workloads.
    pub workloads: usize,
    /// How long the series of an ended subject stay.
    pub retention: Duration,
}

/// Indices into the sets of processes, VMs and workloads.
const PROCESS: usize = 0;
const VM: usize = 1;
const WORKLOAD: usize = 2;

/// The label values of `kind`.
const KINDS: [&str; 3] = ["process", "vm", "workload"];

/// All tallies.
#[derive(Debug)]
pub struct Table {
    retention: Duration,
    /// In the order of pids.
    subjects: BTreeMap<SubjectId, Box<Subject>>,
    /// Those that have ended, in that order.
    ended: VecDeque<(Instant, SubjectId)>,
    places: [Places; 2],
    workloads: Workloads,
    vm_ids: VmIds,
    /// Subjects that are to be named.
    unnamed: BTreeSet<SubjectId>,
    host: HostCounters,
    /// Events that no ledger has.
    added: [u64; Event::COUNT],
    /// Losses that the agent itself saw.
    lost: [u64; Loss::COUNT],
    /// Locks of overflow subjects that have ended.
    overflow_ended: [u64; KINDS.len()],
    /// Subjects that found no place, ever.
    overflow_subjects: [u64; KINDS.len()],
}

impl Table {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            retention: limits.retention,
            subjects: BTreeMap::new(),
            ended: VecDeque::new(),
            places: [Places::new(limits.processes), Places::new(limits.vms)],
            workloads: Workloads::new(limits.workloads, limits.retention),
            vm_ids: VmIds::default(),
            unnamed: BTreeSet::new(),
            host: HostCounters::default(),
            added: [0; Event::COUNT],
            lost: [0; Loss::COUNT],
            overflow_ended: [0; KINDS.len()],
            overflow_subjects: [0; KINDS.len()],
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
        read: impl FnOnce(&mut Subject) -> bool,
    ) -> bool {
        let (subject, is_new) = match self.subjects.entry(key.into()) {
            Entry::Occupied(occupied) => (occupied.into_mut(), false),
            Entry::Vacant(vacant) => (vacant.insert(Box::new(make())), true),
        };
        // The kernel log, or KVM, may have told of it first. If it has ended meanwhile, its place in
        // the ledger is still to be freed; or it was taken for ended and is not. It is as good as new.
        subject.key = Some(key);
        let is_news = subject.ended.take().is_some();
        // Of most subjects nothing has changed since the last reading.
        if read(subject) || is_new || is_news {
            self.changed(key.into());
        }
        is_new || is_news
    }

    /// Takes in a process that was seen to have a VM. True if the subject is new.
    pub fn meet_vm(&mut self, id: SubjectId, comm: &[u8]) -> bool {
        let is_new = !self.subjects.contains_key(&id);
        self.subjects
            .entry(id)
            .or_insert_with(|| Box::new(Subject::outside_ledgers(id, comm)))
            .has_vm = true;
        self.changed(id);
        is_new
    }

    /// A process has no VM any more. If it never ran one, it is not shown as one.
    pub fn lose_vm(&mut self, id: SubjectId) {
        let Some(subject) = self.subjects.get_mut(&id) else {
            return;
        };
        subject.has_vm = false;
        if subject.belongs(true) {
            return;
        }
        let place = std::mem::take(&mut subject.vm);
        subject.asked[VM] = false;
        if let Some(labels) = subject.labels.take() {
            self.vm_ids.forget(id, &labels.id);
        }
        self.places[VM].take_back(id, place);
    }

    /// Draws the consequences of what was counted for a subject.
    fn changed(&mut self, id: SubjectId) {
        self.place(id);
        self.note_unnamed(id);
        self.settle(id);
    }

    /// Counts an event that no ledger has: one that the kernel log told, or a call whose return was
    /// not seen. True if the subject is new.
    pub fn count_event(&mut self, id: SubjectId, comm: &[u8], event: Event, boot_ns: u64) -> bool {
        self.added[event.index()] += 1;
        let (subject, is_new) = match self.subjects.entry(id) {
            Entry::Occupied(occupied) => (occupied.into_mut(), false),
            Entry::Vacant(vacant) => (
                vacant.insert(Box::new(Subject::outside_ledgers(id, comm))),
                true,
            ),
        };
        subject.add_event(event, boot_ns);
        self.changed(id);
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
            let claim = subject.claim(guest);
            if self.places[kind].is_full()
                && let Some(other) = self.places[kind].yielding(claim)
            {
                self.make_yield(other, guest);
            }
            if let Some(subject) = self.subjects.get_mut(&id) {
                let place = self.places[kind].give();
                if place == Place::Overflow && subject.place(guest) == Place::None {
                    self.overflow_subjects[kind] += 1;
                }
                subject.set_place(guest, place);
            }
        }
        self.note_who_yields(id);
    }

    /// Takes a subject's place. What the series of an ended one show goes on with whoever has the
    /// same labels; one that lives may come back with it.
    fn make_yield(&mut self, id: SubjectId, guest: bool) {
        let Some(subject) = self.subjects.get_mut(&id) else {
            return;
        };
        let left = subject.ended.is_some().then(|| subject.carry(guest));
        subject.set_place(guest, Place::Overflow);
        self.places[usize::from(guest)].take_back(id, Place::Held);
        if let Some(left) = left
            && let Some(heir) = self.heir(id, guest)
            && let Some(heir) = self.subjects.get_mut(&heir)
        {
            heir.inherit(guest, &left);
            let heir = heir.id;
            self.note_who_yields(heir);
        }
        self.release(id);
    }

    /// Another subject that is shown with the same labels.
    fn heir(&self, id: SubjectId, guest: bool) -> Option<SubjectId> {
        let subject = self.subjects.get(&id)?;
        let is_heir = |other: &Subject| other.id != id && other.place(guest) == Place::Held;
        if guest {
            let labels = subject.labels.as_ref()?;
            let holder = self.subjects.get(&self.vm_ids.holder(&labels.id)?)?;
            let same = holder.labels.as_ref()?;
            return (is_heir(holder) && same.name == labels.name).then_some(holder.id);
        }
        let [first, last] = [0, u64::MAX].map(|start_ticks| SubjectId { start_ticks, ..id });
        self.subjects
            .range(first..=last)
            .map(|(_, other)| other)
            .find(|other| is_heir(other) && other.comm == subject.comm)
            .map(|other| other.id)
    }

    fn note_who_yields(&mut self, id: SubjectId) {
        let Some(subject) = self.subjects.get(&id) else {
            return;
        };
        for (kind, guest) in [(PROCESS, false), (VM, true)] {
            let claim = subject.claim(guest);
            let is_member = subject.place(guest) == Place::Held;
            self.places[kind].note(id, is_member.then_some(claim));
        }
    }

    /// A subject's identity in the ledgers, if they have told of it.
    pub fn key(&self, id: SubjectId) -> Option<SubjectKey> {
        self.subjects.get(&id)?.key
    }

    /// Whether a subject is known.
    pub fn knows(&self, id: SubjectId) -> bool {
        self.subjects.contains_key(&id)
    }

    /// A subject has ended and its last reading was taken.
    pub fn end(&mut self, id: SubjectId, now: Instant) {
        if let Some(subject) = self.subjects.get_mut(&id) {
            let is_news = subject.ended.is_none();
            subject.ended.get_or_insert(now);
            subject.leave_ledgers();
            self.note_who_yields(id);
            self.release(id);
            // Most of a crowd past a limit have gone by now.
            if is_news && self.knows(id) {
                self.ended.push_back((now, id));
                self.forget_the_gone();
            }
        }
    }

    /// Keeps the queue of the ended in proportion to the subjects: one that was let go of before its
    /// time stays in it, and past a limit nearly all are.
    fn forget_the_gone(&mut self) {
        if self.ended.len() < 2 * self.subjects.len() + 64 {
            return;
        }
        let subjects = &self.subjects;
        self.ended.retain(|(ended, id)| {
            subjects
                .get(id)
                .is_some_and(|subject| subject.ended == Some(*ended))
        });
        self.ended.shrink_to(self.subjects.len() * 4);
    }

    /// Lets go at once of an ended subject without series, or with nothing to show in them. One
    /// that is still to be named stays for that: its locks are to be counted for its workload.
    fn release(&mut self, id: SubjectId) {
        let Some(subject) = self.subjects.get(&id) else {
            return;
        };
        let is_empty = !subject.has_counts(false) && !subject.has_counts(true);
        if subject.ended.is_some()
            && (is_empty || !subject.has_series() && !subject.is_unnamed(false))
            && let Some(subject) = self.subjects.remove(&id)
        {
            self.let_go(&subject);
        }
    }

    /// Whether a newcomer might find no place.
    pub fn is_full(&self) -> bool {
        self.places.iter().any(Places::is_full)
    }

    /// How many subjects there are, also those past a limit.
    pub fn subject_count(&self) -> usize {
        self.subjects.len()
    }

    /// Lets go of subjects that ended the retention time ago.
    pub fn expire(&mut self, now: Instant) {
        let (mut over, mut unnamed) = (vec![], vec![]);
        while let Some((ended, id)) = self.ended.front().copied()
            && now.duration_since(ended) >= self.retention
        {
            self.ended.pop_front();
            match self.subjects.entry(id) {
                // Its locks are to be counted for its workload first.
                Entry::Occupied(subject) if subject.get().is_unnamed(false) => unnamed.push(id),
                // It was taken for ended, and lives, or has ended again since.
                Entry::Occupied(subject) if subject.get().ended != Some(ended) => {}
                Entry::Occupied(subject) => over.push(subject.remove()),
                // It was let go of before.
                Entry::Vacant(_) => {}
            }
        }
        for id in unnamed {
            if let Some(subject) = self.subjects.get_mut(&id) {
                subject.ended = Some(now);
                self.ended.push_back((now, id));
            }
        }
        if over.is_empty() {
            return;
        }
        let mut heirs = Heirs::default();
        for subject in &over {
            self.let_go(subject);
            heirs.leave(subject);
        }
        let richer: Vec<SubjectId> = self
            .subjects
            .values_mut()
            .filter_map(|subject| heirs.inherit(subject).then_some(subject.id))
            .collect();
        for id in richer {
            self.note_who_yields(id);
        }
        // What a crowd took goes back when it has gone.
        self.ended.shrink_to(self.ended.len() * 4);
    }

    fn let_go(&mut self, subject: &Subject) {
        for (kind, place) in [(PROCESS, subject.process), (VM, subject.vm)] {
            self.places[kind].take_back(subject.id, place);
            if place == Place::Overflow {
                self.overflow_ended[kind] += subject.locks(kind == VM);
            }
        }
        match &subject.workload {
            Membership::None => {}
            Membership::Member(key) => self.workloads.leave(key),
            Membership::Overflow => self.overflow_ended[WORKLOAD] += subject.locks(false),
        }
        if let Some(labels) = &subject.labels {
            self.vm_ids.forget(subject.id, &labels.id);
        }
        self.unnamed.remove(&subject.id);
    }
}

/// What ended subjects leave to those that go on with their series, by the series' labels.
#[derive(Default)]
struct Heirs {
    processes: HashMap<(u32, Arc<str>), Carried>,
    vms: HashMap<(String, String), Carried>,
}

impl Heirs {
    fn leave(&mut self, subject: &Subject) {
        if subject.process == Place::Held {
            let labels = (subject.id.pid, subject.comm.clone());
            let sum = self.processes.entry(labels).or_default();
            sum.add(&subject.carry(false));
        }
        if subject.vm == Place::Held
            && let Some(labels) = &subject.labels
        {
            let labels = (labels.name.clone(), labels.id.clone());
            self.vms
                .entry(labels)
                .or_default()
                .add(&subject.carry(true));
        }
    }

    /// True if the subject has inherited something.
    fn inherit(&mut self, subject: &mut Subject) -> bool {
        let process = (subject.process == Place::Held)
            .then(|| (subject.id.pid, subject.comm.clone()))
            .and_then(|labels| self.processes.remove(&labels));
        let vm = subject
            .labels
            .as_ref()
            .filter(|_| subject.vm == Place::Held)
            .and_then(|labels| self.vms.remove(&(labels.name.clone(), labels.id.clone())));
        let inherits = process.is_some() || vm.is_some();
        for (guest, left) in [(false, process), (true, vm)] {
            if let Some(left) = left {
                subject.inherit(guest, &left);
            }
        }
        inherits
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
