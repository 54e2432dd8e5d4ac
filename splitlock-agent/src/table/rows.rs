//! What the table shows: rows of subjects and sums of the rest.

use std::{collections::BTreeMap, sync::Arc};

use splitlock_common::{Event, Loss};

use super::{
    KINDS, PROCESS, Table, VM, WORKLOAD,
    place::Place,
    snapshot::{Fullness, Owner, ProcessRow, TrapCount, VmRow, WorkloadRow},
    subject::{Membership, Subject},
};
use crate::subjects::{SubjectId, vmm::Vmm};

/// Who a subject is.
#[derive(Clone, Debug)]
pub struct Who {
    /// The group leader's comm.
    pub comm: Arc<str>,
    /// Whose it is.
    pub owner: Arc<Owner>,
    /// Name, id and VMM of a VM.
    pub vm: Option<(String, String, Vmm)>,
}

impl Table {
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

    /// The processes with series, once they are named; in the order of pids.
    pub fn processes(&self) -> Vec<ProcessRow> {
        self.subjects
            .values()
            .filter_map(|subject| process(subject))
            .collect()
    }

    /// One of them.
    pub fn process(&self, id: SubjectId) -> Option<ProcessRow> {
        process(self.subjects.get(&id)?)
    }

    /// The VMs with series, once they are named; in the order of pids.
    pub fn vms(&self) -> Vec<VmRow> {
        self.subjects
            .values()
            .filter_map(|subject| vm(subject))
            .collect()
    }

    /// One of them.
    pub fn vm(&self, id: SubjectId) -> Option<VmRow> {
        vm(self.subjects.get(&id)?)
    }

    /// Who a subject is, as far as labels tell: as a process, or as a VM. `None` while it is not
    /// named, and for one that is not kept.
    pub fn who(&self, id: SubjectId, guest: bool) -> Option<Who> {
        let subject = self.subjects.get(&id)?;
        if guest {
            let labels = subject.labels.as_ref()?;
            return Some(Who {
                comm: subject.comm.clone(),
                owner: labels.owner.clone(),
                vm: Some((labels.name.clone(), labels.id.clone(), labels.vmm)),
            });
        }
        Some(Who {
            comm: subject.comm.clone(),
            owner: subject.owner.clone()?,
            vm: None,
        })
    }

    /// The workloads.
    pub fn workloads(&self) -> Vec<WorkloadRow> {
        self.workloads.rows()
    }

    /// Locks of subjects without series, by kind of series: past a limit here, or without a place
    /// in the kernel's ledger.
    pub fn overflow(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = self.overflow_ended;
        for subject in self.subjects.values() {
            for (kind, place) in [(PROCESS, subject.process), (VM, subject.vm)] {
                if place == Place::Overflow {
                    sums[kind] += subject.locks(kind == VM);
                }
            }
            if subject.workload == Membership::Overflow {
                sums[WORKLOAD] += subject.locks(false);
            }
        }
        for event in Event::ALL.iter().filter(|event| event.is_lock()) {
            let count = self.host.unattributed[event.index()];
            if event.is_guest() {
                sums[VM] += count;
            } else {
                sums[PROCESS] += count;
                sums[WORKLOAD] += count;
            }
        }
        KINDS.into_iter().zip(sums).collect()
    }

    /// How many subjects found no place when they came, by kind.
    pub fn overflow_subjects(&self) -> BTreeMap<&'static str, u64> {
        KINDS.into_iter().zip(self.overflow_subjects).collect()
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
            .zip([
                self.places[PROCESS].fullness(),
                self.places[VM].fullness(),
                self.workloads.fullness(),
            ])
            .collect()
    }
}

fn process(subject: &Subject) -> Option<ProcessRow> {
    let is_shown = subject.process == Place::Held && !subject.is_unnamed(false);
    is_shown.then(|| subject.process_row())
}

fn vm(subject: &Subject) -> Option<VmRow> {
    let is_shown = subject.vm == Place::Held && !subject.is_unnamed(true);
    is_shown.then(|| subject.vm_row())
}
