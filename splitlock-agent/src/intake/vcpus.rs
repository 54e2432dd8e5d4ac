//! Which rows of the exit ledger belong to which VM.
//!
//! The kernel side claims a row and tells so by a record; a claim whose record was lost is found by
//! the count of claims, which is exact.

use std::collections::HashMap;

use splitlock_common::ledger::{SubjectKey, VcpuKey};

use super::exit_rows::{ExitRows, ExitTally, RowHead};

/// The rows of one VM.
struct Vm {
    head: RowHead,
    rows: HashMap<VcpuKey, u32>,
    /// Counters of threads that have ended before their VM, whose rows were given back.
    ended: ExitTally,
}

/// All claimed rows.
#[derive(Default)]
pub struct Vcpus {
    vms: HashMap<SubjectKey, Vm>,
    claimed: usize,
    seen: u64,
}

impl Vcpus {
    /// Takes in a claimed row. One that is known already is none.
    pub fn add(&mut self, vcpu: VcpuKey, row: u32, rows: &ExitRows) {
        let Some(head) = rows.head(row) else { return };
        let vm = self.vms.entry(vcpu.subject()).or_insert_with(|| Vm {
            head,
            rows: HashMap::new(),
            ended: ExitTally::default(),
        });
        if vm.rows.insert(vcpu, row).is_none() {
            self.claimed += 1;
            self.seen += 1;
        }
        if head.first_ns < vm.head.first_ns {
            vm.head = head;
        }
    }

    /// How many claims were taken in, ever.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether a row is known.
    pub fn knows(&self, vcpu: &VcpuKey) -> bool {
        self.vms
            .get(&vcpu.subject())
            .is_some_and(|vm| vm.rows.contains_key(vcpu))
    }

    /// How many rows are claimed.
    pub const fn claimed(&self) -> usize {
        self.claimed
    }

    /// All VMs.
    pub fn vms(&self) -> impl Iterator<Item = SubjectKey> + '_ {
        self.vms.keys().copied()
    }

    /// A VM's counters, added up over its vCPU threads.
    pub fn tally(&self, vm: SubjectKey, rows: &ExitRows) -> Option<(RowHead, ExitTally)> {
        let vm = self.vms.get(&vm)?;
        let mut tally = vm.ended.clone();
        for row in vm.rows.values() {
            rows.add_to(*row, &mut tally);
        }
        Some((vm.head, tally))
    }

    /// Forgets a VM; its rows are to be freed.
    pub fn remove(&mut self, vm: SubjectKey) -> Vec<(VcpuKey, u32)> {
        let Some(vm) = self.vms.remove(&vm) else {
            return vec![];
        };
        self.claimed -= vm.rows.len();
        vm.rows.into_iter().collect()
    }

    /// Takes out the rows of threads that have ended, and keeps their counters for their VM; the
    /// rows are to be freed.
    pub fn remove_ended(
        &mut self,
        rows: &ExitRows,
        has_ended: impl Fn(&VcpuKey) -> bool,
    ) -> Vec<(VcpuKey, u32)> {
        let mut removed = vec![];
        for vm in self.vms.values_mut() {
            let ended: Vec<(VcpuKey, u32)> =
                vm.rows.extract_if(|vcpu, _| has_ended(vcpu)).collect();
            for (_, row) in &ended {
                rows.add_to(*row, &mut vm.ended);
            }
            removed.extend(ended);
        }
        self.claimed -= removed.len();
        removed
    }
}
