//! What can go missing, by cause. Each is counted where it happens.

/// A cause of loss; the number is the index into the kernel side's loss counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Loss {
    /// A record found no room in the ring buffer. No count is affected.
    RecordRingFull = 0,
    /// A record was held back by its subject's rate limit. No count is affected.
    RecordRateLimit = 1,
    /// An event counted for the host found no entry for its subject.
    TrapLedgerFull = 2,
    /// A VM exit was not counted, as no row was free for its vCPU thread.
    ExitLedgerFull = 3,
    /// The task's identity could not be read: the event is counted for the host alone, a VM exit not at all.
    TaskUnreadable = 4,
    /// A SIGBUS could not be judged: the saved registers or the signal's code were unreadable.
    SignalUnreadable = 5,
    /// A field of a KVM trace record could not be read.
    ExitUnreadable = 6,
    /// A call of a split-lock function could not be followed to its return.
    CallUntracked = 7,
    /// The kernel log overwrote messages before the agent read them. Counted by the agent.
    KernelLogOverrun = 8,
    /// A message of the kernel log could not be parsed. Counted by the agent.
    KernelLogMalformed = 9,
    /// The return of a split-lock function was not seen. The trap is counted when its thread traps
    /// again or its process ends; the delay is not.
    ReturnUnseen = 10,
    /// A subject had ended before `/proc` told who it was: what the kernel side wrote down names it.
    /// Counted by the agent.
    IdentityEnded = 11,
    /// `/proc` did not tell in time who a subject is. Counted by the agent.
    IdentityOverdue = 12,
    /// `/proc` refused to tell something of who a subject is. Counted by the agent.
    IdentityUnreadable = 13,
    /// What is at an instruction that trapped was not looked at, as too many questions were open.
    /// Counted by the agent.
    CodeQueueFull = 14,
    /// An event had no line in the event log, as there were too many in one second. Counted by the
    /// agent.
    EventLogRateLimit = 15,
    /// An event had no line in the event log, as nobody took the earlier ones. Counted by the agent.
    EventLogBehind = 16,
}

impl Loss {
    /// How many there are.
    pub const COUNT: usize = 17;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::RecordRingFull,
        Self::RecordRateLimit,
        Self::TrapLedgerFull,
        Self::ExitLedgerFull,
        Self::TaskUnreadable,
        Self::SignalUnreadable,
        Self::ExitUnreadable,
        Self::CallUntracked,
        Self::KernelLogOverrun,
        Self::KernelLogMalformed,
        Self::ReturnUnseen,
        Self::IdentityEnded,
        Self::IdentityOverdue,
        Self::IdentityUnreadable,
        Self::CodeQueueFull,
        Self::EventLogRateLimit,
        Self::EventLogBehind,
    ];

    /// The label value of `cause`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordRingFull => "record_ring_full",
            Self::RecordRateLimit => "record_rate_limit",
            Self::TrapLedgerFull => "trap_ledger_full",
            Self::ExitLedgerFull => "exit_ledger_full",
            Self::TaskUnreadable => "task_unreadable",
            Self::SignalUnreadable => "signal_unreadable",
            Self::ExitUnreadable => "exit_unreadable",
            Self::CallUntracked => "call_untracked",
            Self::KernelLogOverrun => "kernel_log_overrun",
            Self::KernelLogMalformed => "kernel_log_malformed",
            Self::ReturnUnseen => "return_unseen",
            Self::IdentityEnded => "identity_ended",
            Self::IdentityOverdue => "identity_overdue",
            Self::IdentityUnreadable => "identity_unreadable",
            Self::CodeQueueFull => "code_queue_full",
            Self::EventLogRateLimit => "event_log_rate_limit",
            Self::EventLogBehind => "event_log_behind",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_positions_and_names_differ() {
        for (position, loss) in Loss::ALL.iter().enumerate() {
            assert_eq!(*loss as usize, position);
        }
        let names: BTreeSet<_> = Loss::ALL.iter().map(|loss| loss.name()).collect();
        assert_eq!(names.len(), Loss::COUNT);
    }
}
