//! Unique ids of VMs.
//!
//! A VM's id is its UUID, so that it is the same after an agent's restart and, after a live
//! migration, on another host. Two VMs that run at the same time with one UUID, which only a
//! mistake or malice makes, are told apart: the first keeps it.

use std::collections::HashMap;

use crate::subjects::SubjectId;

/// Who holds which UUID.
#[derive(Debug, Default)]
pub struct VmIds {
    holders: HashMap<String, SubjectId>,
}

impl VmIds {
    /// The id of a VM: its UUID, unless another VM has it that still lives; else pid and start time.
    pub fn give(
        &mut self,
        vm: SubjectId,
        uuid: Option<&str>,
        lives: impl Fn(SubjectId) -> bool,
    ) -> String {
        let Some(uuid) = uuid else { return vm.label() };
        match self.holders.get(uuid) {
            Some(holder) if *holder != vm && lives(*holder) => vm.label(),
            _ => {
                self.holders.insert(uuid.to_owned(), vm);
                uuid.to_owned()
            }
        }
    }

    /// Who has an id that is a UUID.
    pub fn holder(&self, id: &str) -> Option<SubjectId> {
        self.holders.get(id).copied()
    }

    /// A VM is not known any more.
    pub fn forget(&mut self, vm: SubjectId, id: &str) {
        if self.holders.get(id) == Some(&vm) {
            self.holders.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "12345678-9abc-def0-1234-56789abcdef0";

    fn vm(pid: u32) -> SubjectId {
        SubjectId {
            pid,
            start_ticks: 7,
        }
    }

    #[test]
    fn a_uuid_is_held_by_one_living_vm() {
        let mut ids = VmIds::default();
        assert_eq!(ids.give(vm(1), Some(UUID), |_| true), UUID);
        assert_eq!(ids.give(vm(1), Some(UUID), |_| true), UUID, "it again");
        assert_eq!(ids.give(vm(2), Some(UUID), |_| true), "2-7");
        assert_eq!(ids.give(vm(3), None, |_| true), "3-7");
    }

    #[test]
    fn after_its_end_the_next_one_has_it() {
        let mut ids = VmIds::default();
        ids.give(vm(1), Some(UUID), |_| true);
        assert_eq!(ids.give(vm(2), Some(UUID), |_| false), UUID);
        // The first one is let go of later; the id is the second's by then.
        ids.forget(vm(1), UUID);
        assert_eq!(ids.give(vm(3), Some(UUID), |_| true), "3-7");
        ids.forget(vm(2), UUID);
        assert_eq!(ids.give(vm(3), Some(UUID), |_| true), UUID);
        assert_eq!(ids.holders.len(), 1);
    }
}
