//! Names for subjects: who wants one, and what follows from it.

use std::sync::Arc;

use super::{
    Table, VM,
    place::Place,
    snapshot::Owner,
    subject::{Membership, VmLabels},
    workloads::WorkloadKey,
};
use crate::subjects::{
    SubjectId,
    identity::{Identity, Seen},
};

/// A subject that nobody has named yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// Who.
    pub id: SubjectId,
    /// The group leader's comm when it was first heard of.
    pub comm: String,
    /// Id of its cgroup then; 0 where nobody told it.
    pub cgroup_id: u64,
}

impl Unnamed {
    /// What the kernel side knows of it.
    pub fn seen(&self) -> Seen<'_> {
        Seen {
            comm: self.comm.as_bytes(),
            cgroup_id: self.cgroup_id,
        }
    }
}

impl Table {
    /// Notes a subject that is to be named.
    pub(super) fn note_unnamed(&mut self, id: SubjectId) {
        let unnamed = self
            .subjects
            .get(&id)
            .is_some_and(|subject| subject.is_unnamed(false) || subject.is_unnamed(true));
        if unnamed {
            self.unnamed.insert(id);
        }
    }

    /// The subjects that are to be named now: each once as a process, and once when it turns out to
    /// be a VM, which it may have become by then.
    pub fn take_unnamed(&mut self) -> Vec<Unnamed> {
        let unnamed = std::mem::take(&mut self.unnamed);
        unnamed
            .into_iter()
            .filter_map(|id| {
                let subject = self.subjects.get(&id)?;
                Some(Unnamed {
                    id,
                    comm: subject.comm.clone(),
                    cgroup_id: subject.cgroup_id,
                })
            })
            .collect()
    }

    /// Names a subject as what it is and has no name as yet.
    pub fn name(&mut self, identity: &Identity) {
        let id = identity.subject;
        let Some(subject) = self.subjects.get_mut(&id) else {
            return;
        };
        let owner = Arc::new(Owner::from(identity));
        if subject.is_unnamed(false) {
            subject.owner = Some(Arc::clone(&owner));
        }
        if subject.is_unnamed(true) {
            self.name_vm(identity, owner);
        }
        self.settle(id);
    }

    fn name_vm(&mut self, identity: &Identity, owner: Arc<Owner>) {
        let id = identity.subject;
        let naming = &identity.vm;
        let subjects = &self.subjects;
        let lives = |holder: SubjectId| {
            subjects
                .get(&holder)
                .is_some_and(|subject| subject.ended.is_none())
        };
        let vm_id = self.vm_ids.give(id, naming.uuid.as_deref(), lives);
        self.retire_renamed(&vm_id, &naming.name);
        let Some(subject) = self.subjects.get_mut(&id) else {
            return;
        };
        subject.labels = Some(VmLabels {
            name: naming.name.clone(),
            id: vm_id,
            vmm: naming.vmm,
            named_by: naming.evidence,
            owner,
        });
    }

    /// An id has one name at a time: ended VMs that had another go now.
    fn retire_renamed(&mut self, vm_id: &str, name: &str) {
        for subject in self.subjects.values_mut() {
            let is_renamed = subject.ended.is_some()
                && subject
                    .labels
                    .as_ref()
                    .is_some_and(|labels| labels.id == vm_id && labels.name != name);
            if is_renamed && subject.vm == Place::Held {
                self.places[VM].take_back(subject.vm);
                subject.vm = Place::None;
            }
        }
    }

    /// Counts a subject's newest locks for its workload.
    pub(super) fn settle(&mut self, id: SubjectId) {
        let Some(subject) = self.subjects.get_mut(&id) else {
            return;
        };
        let Some(owner) = &subject.owner else { return };
        if subject.workload == Membership::None && subject.locks(false) > 0 {
            let key = WorkloadKey {
                comm: subject.comm.clone(),
                unit: owner.workload_unit().to_owned(),
            };
            subject.workload = if self.workloads.join(&key) {
                Membership::Member(key)
            } else {
                Membership::Overflow
            };
        }
        let news = subject.settle();
        if let Membership::Member(key) = &subject.workload {
            self.workloads.add(key, &news);
        }
    }
}
