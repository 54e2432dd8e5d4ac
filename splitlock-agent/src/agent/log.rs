//! What the kernel log reports.

use std::collections::BTreeMap;

use splitlock_common::{Event, Hook, Loss, Trap, ledger::VcpuKey};

use super::Agent;
use crate::{
    host::clock::boot_ns,
    intake::kernel_log::{Batch, Report, message::What},
    subjects::{SubjectId, process},
};

/// Reports of the kernel log: split locks, bus locks.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogReports([u64; 2]);

impl LogReports {
    /// Counts reports.
    pub fn add(&mut self, reports: &[Report]) {
        for report in reports {
            self.0[usize::from(report.trap == Trap::BusLock)] += 1;
        }
    }

    /// By the trap's name.
    pub fn by_name(self) -> BTreeMap<&'static str, u64> {
        [Trap::SplitLock.name(), Trap::BusLock.name()]
            .into_iter()
            .zip(self.0)
            .collect()
    }
}

impl Agent {
    /// Counts what only the log tells.
    pub(super) fn take_log(&mut self, batch: &Batch) {
        self.log_reports.add(&batch.reports);
        self.table.add_lost(Loss::KernelLogOverrun, batch.overruns);
        self.table
            .add_lost(Loss::KernelLogMalformed, batch.malformed);
        for report in &batch.reports {
            let (id, is_vcpu) = self.who(report.tid);
            let event = match (report.trap, report.what) {
                (Trap::BusLock, _) => Event::UserBusLockWarned,
                // The same line for both; a vCPU thread spends its time in the guest.
                (Trap::SplitLock, What::Took) if is_vcpu => Event::GuestSplitLockWarned,
                (Trap::SplitLock, What::Took) => Event::UserSplitLockWarned,
                (Trap::SplitLock, What::Fatal | What::Bogus) => Event::GuestSplitLockSigbus,
            };
            if self.facts.counts(Hook::KernelLog, event)
                && self
                    .table
                    .count_event(id, report.comm.as_bytes(), event, boot_ns())
            {
                self.watch(id);
            }
        }
    }

    /// The thread group of a thread that the log names, and whether it is a vCPU. One that is gone
    /// stands for itself.
    fn who(&self, tid: u32) -> (SubjectId, bool) {
        let found = process::thread_group(&self.facts.paths, tid)
            .and_then(|pid| Ok((pid, process::start_ticks(&self.facts.paths, pid)?)));
        let Ok((pid, start_ticks)) = found else {
            let gone = SubjectId {
                pid: tid,
                start_ticks: 0,
            };
            return (gone, false);
        };
        let id = SubjectId { pid, start_ticks };
        let is_vcpu = self.table.key(id).is_some_and(|key| {
            let vcpu = VcpuKey {
                pid_tgid: u64::from(pid) << 32 | u64::from(tid),
                start_ns: key.start_ns,
            };
            self.vcpus.knows(&vcpu)
        });
        (id, is_vcpu)
    }
}
