//! Names for subjects: who has none yet, and what follows from one.

use std::{sync::Arc, time::Instant};

use super::{
    Table, VM, WORKLOAD,
    place::Place,
    snapshot::Owner,
    subject::{Membership, VmLabels},
    workloads::WorkloadKey,
};
use crate::subjects::{
    SubjectId,
    identity::{Identity, Question},
};

impl Table {
    /// Notes a subject that is to be named.
    pub(super) fn note_unnamed(&mut self, id: SubjectId) {
        let Some(subject) = self.subjects.get(&id) else {
            return;
        };
        if [false, true]
            .into_iter()
            .any(|guest| subject.is_unnamed(guest) && !subject.asked[usize::from(guest)])
        {
            self.unnamed.insert(id);
        }
    }

    /// The subjects that somebody is to be asked about now: each once as a process, and once when
    /// it turns out to be a VM, as it may have executed another program meanwhile.
    pub fn take_unnamed(&mut self) -> Vec<Question> {
        let unnamed = std::mem::take(&mut self.unnamed);
        unnamed
            .into_iter()
            .filter_map(|id| {
                let subject = self.subjects.get_mut(&id)?;
                subject.asked = [false, true].map(|guest| subject.belongs(guest));
                Some(Question {
                    subject: id,
                    comm: subject.comm.to_string(),
                    cgroup_id: subject.cgroup_id,
                    is_vm: subject.belongs(true),
                })
            })
            .collect()
    }

    /// Names a subject as what was asked about it.
    pub fn name(&mut self, identity: &Identity) {
        let id = identity.subject;
        let Some(subject) = self.subjects.get_mut(&id) else {
            return;
        };
        let owner = Arc::new(Owner::from(identity));
        if subject.is_unnamed(false) && subject.asked[0] {
            subject.owner = Some(Arc::clone(&owner));
        }
        if identity.is_vm && subject.is_unnamed(true) {
            self.name_vm(identity, owner);
        }
        self.settle(id);
        self.release(id);
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
        subject.labels = Some(Box::new(VmLabels {
            name: naming.name.clone(),
            id: vm_id,
            vmm: naming.vmm,
            named_by: naming.evidence,
            owner,
        }));
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
                self.places[VM].take_back(subject.id, subject.vm);
                subject.vm = Place::None;
            }
        }
    }

    /// Who holds a UUID, if that is somebody else who has not been seen to end.
    pub fn rival(&self, identity: &Identity) -> Option<SubjectId> {
        let uuid = identity.vm.uuid.as_deref().filter(|_| identity.is_vm)?;
        let holder = self.vm_ids.holder(uuid)?;
        let lives = self.subjects.get(&holder)?.ended.is_none();
        (lives && holder != identity.subject).then_some(holder)
    }

    /// Counts a subject's newest locks for its workload.
    pub(super) fn settle(&mut self, id: SubjectId) {
        let Some(subject) = self.subjects.get_mut(&id) else {
            return;
        };
        let Some(owner) = &subject.owner else { return };
        let now = Instant::now();
        if subject.workload == Membership::None && subject.locks(false) > 0 {
            let key = WorkloadKey {
                comm: Arc::clone(&subject.comm),
                unit: owner.workload_unit().into(),
            };
            subject.workload = self
                .workloads
                .join(key, now)
                .map_or(Membership::Overflow, Membership::Member);
            if subject.workload == Membership::Overflow {
                self.overflow_subjects[WORKLOAD] += 1;
            }
        }
        let news = subject.settle();
        if let Membership::Member(key) = &subject.workload {
            self.workloads.add(key, &news, now);
        }
    }
}
