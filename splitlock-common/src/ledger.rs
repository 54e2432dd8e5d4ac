//! The two ledgers: keys and values of the maps that hold the counts.
//!
//! All structures are `repr(C)` without implicit padding, so that every byte that crosses
//! between the kernel and the agent is defined.

use crate::exit_reason::{EXIT_SLOTS, USERSPACE_SLOTS};

/// Length of a task's comm, with its terminating NUL (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// Room for the counters of one subject: a power of two, so that a masked index is in bounds.
pub const EVENT_SLOTS: usize = 16;
const _: () = assert!(crate::trap::Event::COUNT <= EVENT_SLOTS);

/// Room for the loss counters: a power of two, so that a masked index is in bounds.
pub const LOSS_SLOTS: usize = 32;
const _: () = assert!(crate::loss::Loss::COUNT <= LOSS_SLOTS);

/// Counters of the whole host. All are added to atomically.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HostCounters {
    /// Every event, indexed by [`crate::Event::index`].
    pub events: [u64; EVENT_SLOTS],
    /// Those of them that found no place in the trap ledger.
    pub unattributed: [u64; EVENT_SLOTS],
    /// Losses, indexed by [`crate::Loss`].
    pub lost: [u64; LOSS_SLOTS],
    /// Rows of the exit ledger that were claimed, ever.
    pub rows_claimed: u64,
}

/// What the agent knows of the host and may learn anew while the programs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Number of the [`crate::Mode`].
    pub mode: u32,
    /// Number of the [`crate::Armed`].
    pub armed: u32,
}

/// A word of kernel memory that the agent asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Word {
    /// Its value.
    pub value: u32,
    /// 1 if it could be read.
    pub is_read: u32,
}

/// A thread group for its whole life: a pid that is used again has another start time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SubjectKey {
    /// Thread-group id in the initial pid namespace.
    pub tgid: u32,
    /// Always 0.
    pub reserved: u32,
    /// The group leader's `start_boottime`, nanoseconds since boot.
    pub start_ns: u64,
}

/// One subject of the trap ledger. The counters are added to atomically.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TrapEntry {
    /// Events, indexed by [`crate::Event::index`].
    pub counts: [u64; EVENT_SLOTS],
    /// Nanoseconds that the kernel held the subject up: own code, guest code.
    pub delay_ns: [u64; 2],
    /// Boot time of the first event, nanoseconds.
    pub first_ns: u64,
    /// Boot time of the last trapped lock, nanoseconds: own code, guest code. 0 is none yet.
    pub last_ns: [u64; 2],
    /// Id of the cgroup (v2 hierarchy) at the first event.
    pub cgroup_id: u64,
    /// The group leader's comm at the first event.
    pub comm: [u8; COMM_LEN],
    /// Start of the current second of the record rate limit, boot time in nanoseconds.
    pub record_window_ns: u64,
    /// Records written in that second.
    pub record_window_count: u64,
}

/// A vCPU thread for its whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct VcpuKey {
    /// `tgid << 32 | tid`, as `bpf_get_current_pid_tgid` gives it.
    pub pid_tgid: u64,
    /// The group leader's `start_boottime`, nanoseconds since boot.
    pub start_ns: u64,
}

impl VcpuKey {
    /// The VM: its VMM's thread group.
    pub const fn subject(self) -> SubjectKey {
        SubjectKey {
            tgid: (self.pid_tgid >> 32) as u32,
            reserved: 0,
            start_ns: self.start_ns,
        }
    }

    /// The thread's id.
    pub const fn tid(self) -> u32 {
        self.pid_tgid as u32
    }
}

/// One row of the exit ledger: the counters of one vCPU thread, written by that thread alone.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ExitRow {
    /// The owner; zeros while the row is free.
    pub thread: ThreadIdentity,
    /// [`VcpuKey::pid_tgid`] of the owner; 0 while the row is free.
    pub pid_tgid: u64,
    /// [`VcpuKey::start_ns`] of the owner.
    pub start_ns: u64,
    /// Boot time of the first exit, nanoseconds.
    pub first_ns: u64,
    /// Id of the VMM's cgroup (v2 hierarchy) at the first exit.
    pub cgroup_id: u64,
    /// The VMM's comm (the group leader's) at the first exit.
    pub comm: [u8; COMM_LEN],
    /// Instruction set of the exits: 0 none seen yet, 1 VMX, 2 SVM.
    pub isa: u32,
    /// Always 0.
    pub reserved: u32,
    /// VM exits, indexed by [`crate::exit_reason::slot`].
    pub exits: [u64; EXIT_SLOTS],
    /// Returns to the VMM, indexed by [`crate::exit_reason::userspace_slot`].
    pub userspace: [u64; USERSPACE_SLOTS],
    /// Always 0: so each row begins a cache line, and each [`ROWS_PER_PART`] of them a page.
    pub padding: u64,
}

/// Rows that together are whole pages, and can be mapped by themselves.
pub const ROWS_PER_PART: u32 = 64;
const _: () = assert!(size_of::<ExitRow>().is_multiple_of(64));

/// Number of a vCPU in its VM where no hook tells it.
pub const VCPU_UNKNOWN: u32 = u32::MAX;

/// One thread, told from all others that ever live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ThreadIdentity {
    /// Address of its `task_struct`.
    pub task: u64,
    /// Its `start_boottime`, nanoseconds; before 5.11 `tgid << 32 | tid`.
    pub birth: u64,
}

/// A call of a split-lock function that has not returned yet.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Call {
    /// Boot time of the entry, nanoseconds.
    pub entered_ns: u64,
    /// The instruction pointer that the function was told.
    pub ip: u64,
    /// EFLAGS of the trapping code, 0 where the function is not told.
    pub eflags: u64,
    /// 1 once a SIGBUS/BUS_ADRALN was sent during the call.
    pub sigbus: u64,
}

/// Which call: one thread can be in one call of each function at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CallKey {
    /// `tgid << 32 | tid`.
    pub pid_tgid: u64,
    /// Number of the [`crate::Hook`].
    pub hook: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A comm as the kernel gives it, up to its NUL.
pub fn comm_bytes(comm: &[u8; COMM_LEN]) -> &[u8] {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    &comm[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_structure_has_padding() {
        assert_eq!(
            size_of::<HostCounters>(),
            8 * (2 * EVENT_SLOTS + LOSS_SLOTS + 1)
        );
        assert_eq!(size_of::<SubjectKey>(), 16);
        assert_eq!(
            size_of::<TrapEntry>(),
            8 * EVENT_SLOTS + 8 * 6 + COMM_LEN + 16
        );
        assert_eq!(size_of::<VcpuKey>(), 16);
        assert_eq!(
            size_of::<ExitRow>(),
            80 + 8 * (EXIT_SLOTS + USERSPACE_SLOTS)
        );
        assert_eq!(size_of::<Call>(), 32);
        assert_eq!(size_of::<CallKey>(), 16);
    }

    #[test]
    fn a_vcpu_belongs_to_its_thread_group() {
        let key = VcpuKey {
            pid_tgid: 4711 << 32 | 4713,
            start_ns: 5,
        };
        assert_eq!(key.tid(), 4713);
        assert_eq!(
            key.subject(),
            SubjectKey {
                tgid: 4711,
                reserved: 0,
                start_ns: 5
            }
        );
    }

    #[test]
    fn a_comm_ends_at_its_nul_or_at_its_length() {
        assert_eq!(comm_bytes(b"qemu\0junk\0\0\0\0\0\0\0"), b"qemu");
        assert_eq!(comm_bytes(b"sixteen-bytes-xx"), b"sixteen-bytes-xx");
        assert_eq!(comm_bytes(&[0; COMM_LEN]), b"");
    }
}
