//! Which rows of the exit ledger belong to which VM.
//!
//! The kernel side claims a row and tells so by a record; a claim whose record was lost is found by
//! the count of claims, which is exact.

use std::collections::HashMap;

use splitlock_common::{
    ledger::{SubjectKey, ThreadIdentity, VcpuKey},
    record::Record,
};

use super::exit_rows::{ExitRows, ExitTally, RowHead};

/// The vCPU thread that a record tells of.
pub const fn vcpu_of(record: &Record) -> VcpuKey {
    VcpuKey {
        pid_tgid: (record.subject.tgid as u64) << 32 | record.tid as u64,
        start_ns: record.subject.start_ns,
    }
}

/// A vCPU thread's row.
#[derive(Clone, Copy)]
struct Row {
    index: u32,
    /// Number of the vCPU, if somebody told it.
    vcpu: Option<u32>,
}

/// The rows of one VM.
struct Vm {
    head: RowHead,
    rows: HashMap<VcpuKey, Row>,
    /// Counters of threads that have ended before their VM, whose rows were given back.
    ended: Option<Box<ExitTally>>,
}

/// All claimed rows.
#[derive(Default)]
pub struct Vcpus {
    vms: HashMap<SubjectKey, Vm>,
    claimed: usize,
    seen: u64,
}

impl Vcpus {
    /// Takes in a claimed row. One that is known already is none; nor is one that was given back
    /// before its record was read. `number` is that of the vCPU which the thread runs.
    pub fn add(&mut self, key: VcpuKey, row: u32, number: Option<u32>, rows: &ExitRows) {
        let Some(head) = rows.head(row) else { return };
        if !rows.is_owned_by(row, &key) {
            return;
        }
        let vm = self.vms.entry(key.subject()).or_insert_with(|| Vm {
            head,
            rows: HashMap::new(),
            ended: None,
        });
        let row = Row {
            index: row,
            vcpu: number,
        };
        if vm.rows.insert(key, row).is_none() {
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

    /// The row of a vCPU thread, if it is known.
    pub fn row(&self, vcpu: &VcpuKey) -> Option<u32> {
        let vm = self.vms.get(&vcpu.subject())?;
        vm.rows.get(vcpu).map(|row| row.index)
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
        let mut tally = vm.ended.as_deref().cloned().unwrap_or_default();
        for (key, row) in &vm.rows {
            rows.add_to(row.index, &mut tally);
            tally.threads.insert(key.tid(), row.vcpu);
        }
        Some((vm.head, tally))
    }

    /// Forgets a VM; its rows are to be freed.
    pub fn remove(&mut self, vm: SubjectKey) -> Vec<(VcpuKey, u32)> {
        let Some(vm) = self.vms.remove(&vm) else {
            return vec![];
        };
        self.claimed -= vm.rows.len();
        vm.rows
            .into_iter()
            .map(|(key, row)| (key, row.index))
            .collect()
    }

    /// The rows of threads that have ended, each with the thread that counted there last.
    pub fn ended(
        &self,
        rows: &ExitRows,
        has_ended: impl Fn(&VcpuKey) -> bool,
    ) -> Vec<(VcpuKey, u32, ThreadIdentity)> {
        let all = self.vms.values().flat_map(|vm| &vm.rows);
        all.filter_map(|(key, row)| {
            // First, so that a thread that ends and is followed by another is not mistaken for it.
            let thread = rows.thread(row.index)?;
            has_ended(key).then_some((*key, row.index, thread))
        })
        .collect()
    }

    /// Takes out the row of a thread that has ended, and keeps its counters for its VM; the row is to
    /// be freed.
    pub fn remove_ended(&mut self, key: &VcpuKey, rows: &ExitRows) {
        let Some(vm) = self.vms.get_mut(&key.subject()) else {
            return;
        };
        if let Some(row) = vm.rows.remove(key) {
            rows.add_to(row.index, vm.ended.get_or_insert_default());
            self.claimed -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcpu(tgid: u64, tid: u64) -> VcpuKey {
        VcpuKey {
            pid_tgid: tgid << 32 | tid,
            start_ns: tgid,
        }
    }

    fn returns(vcpus: &Vcpus, rows: &ExitRows, vcpu: VcpuKey) -> Option<u64> {
        let (_, tally) = vcpus.tally(vcpu.subject(), rows)?;
        Some(tally.userspace[0])
    }

    #[test]
    fn a_vm_is_the_sum_of_its_threads() {
        let mut rows = ExitRows::in_memory(4);
        let mut vcpus = Vcpus::default();
        for (row, (key, count)) in [(vcpu(1, 1), 5), (vcpu(1, 2), 7), (vcpu(2, 3), 9)]
            .into_iter()
            .enumerate()
        {
            rows.claim(row as u32, key, count);
            vcpus.add(key, row as u32, None, &rows);
            vcpus.add(key, row as u32, None, &rows);
        }
        assert_eq!((vcpus.seen(), vcpus.claimed()), (3, 3));
        assert_eq!(returns(&vcpus, &rows, vcpu(1, 1)), Some(12));
        assert_eq!(returns(&vcpus, &rows, vcpu(2, 3)), Some(9));
        assert_eq!(vcpus.remove(vcpu(1, 1).subject()).len(), 2);
        assert_eq!((vcpus.seen(), vcpus.claimed()), (3, 1));
    }

    #[test]
    fn a_late_record_brings_no_dead_vm_back() {
        let mut rows = ExitRows::in_memory(1);
        let mut vcpus = Vcpus::default();
        let (dead, next) = (vcpu(1, 1), vcpu(2, 2));
        rows.claim(0, dead, 5);
        vcpus.add(dead, 0, None, &rows);
        vcpus.remove(dead.subject());
        rows.clear(0);
        vcpus.add(dead, 0, None, &rows);
        assert_eq!(returns(&vcpus, &rows, dead), None);
        // Nor with the counts of the row's next owner.
        rows.claim(0, next, 9);
        vcpus.add(dead, 0, None, &rows);
        assert_eq!(returns(&vcpus, &rows, dead), None);
        assert_eq!(vcpus.seen(), 1);
    }

    #[test]
    fn counts_of_ended_threads_stay_with_their_vm() {
        let mut rows = ExitRows::in_memory(2);
        let mut vcpus = Vcpus::default();
        for (row, key) in [(0, vcpu(1, 1)), (1, vcpu(1, 2))] {
            rows.claim(row, key, 10);
            vcpus.add(key, row, None, &rows);
        }
        let ended = vcpus.ended(&rows, |key| key.tid() == 1);
        let [(key, row, _)] = ended[..] else {
            panic!("{}", ended.len());
        };
        assert_eq!((key, row), (vcpu(1, 1), 0));
        vcpus.remove_ended(&key, &rows);
        rows.clear(0);
        assert_eq!(vcpus.claimed(), 1);
        assert_eq!(returns(&vcpus, &rows, vcpu(1, 1)), Some(20));
        rows.claim(0, vcpu(1, 3), 1);
        vcpus.add(vcpu(1, 3), 0, None, &rows);
        assert_eq!(returns(&vcpus, &rows, vcpu(1, 1)), Some(21));
    }
}
