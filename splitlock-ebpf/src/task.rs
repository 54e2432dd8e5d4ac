//! Who is running: identity and saved registers of the current task.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_probe_read_kernel,
    generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs},
};
use splitlock_common::{
    Loss,
    ledger::{COMM_LEN, SubjectKey, ThreadIdentity},
};

use crate::config::{self, ABSENT};

/// Reads a kernel value at `base + offset`.
#[inline(always)]
pub fn read<T>(base: u64, offset: u32) -> Result<T, i32> {
    // SAFETY: the helper checks the address itself and fails on a bad one.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }
}

/// Address of the current `task_struct`.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// The current thread.
pub struct Thread {
    /// Its number.
    pub tid: u32,
    /// What tells it from all others.
    pub identity: ThreadIdentity,
}

/// Who runs, at the least cost: one helper, which newer kernels even compile to an instruction.
#[inline(always)]
pub fn thread() -> Thread {
    if config::EXIT_TASK_PID.load() != ABSENT {
        // SAFETY: the helper is there (5.11+).
        let task = unsafe { bpf_get_current_task_btf() } as u64;
        // What that helper gives, the kernel lets a program read directly.
        // SAFETY: fields of the current task.
        let (tid, birth) = unsafe {
            (
                field::<u32>(task, config::EXIT_TASK_PID.load()),
                field::<u64>(task, config::EXIT_TASK_START.load()),
            )
        };
        Thread {
            tid,
            identity: ThreadIdentity { task, birth },
        }
    } else {
        let pid_tgid = bpf_get_current_pid_tgid();
        Thread {
            tid: pid_tgid as u32,
            // No time; but a number that is used again has, but for rare chance, another
            // `task_struct`.
            identity: ThreadIdentity {
                task: current(),
                birth: pid_tgid,
            },
        }
    }
}

/// # Safety
/// `base` is what the verifier knows as a pointer to a structure with a field of this type there.
#[inline(always)]
unsafe fn field<T>(base: u64, offset: u32) -> T {
    // SAFETY: the caller's promise.
    unsafe { ((base + u64::from(offset)) as *const T).read_volatile() }
}

/// The group leader of the current task and the identity of the thread group.
pub struct Subject {
    /// Address of the leader's `task_struct`.
    pub leader: u64,
    /// The identity.
    pub key: SubjectKey,
}

impl Subject {
    /// Reads who the current task belongs to.
    #[inline(always)]
    pub fn current() -> Result<Self, Loss> {
        let leader: u64 = read(current(), config::TASK_GROUP_LEADER.load())
            .map_err(|_errno| Loss::TaskUnreadable)?;
        let start_ns = read(leader, config::TASK_START_BOOTTIME.load())
            .map_err(|_errno| Loss::TaskUnreadable)?;
        Ok(Self {
            leader,
            key: SubjectKey {
                tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
                reserved: 0,
                start_ns,
            },
        })
    }

    /// The leader's comm; zeros where it cannot be read.
    #[inline(always)]
    pub fn comm(&self) -> [u8; COMM_LEN] {
        read(self.leader, config::TASK_COMM.load()).unwrap_or([0; COMM_LEN])
    }
}

/// What the current task's signals look like.
pub struct SignalState {
    /// Signals that it blocks: bit `n - 1` is signal `n`.
    pub blocked: u64,
    /// Signals of this thread that were sent and not delivered yet.
    pub pending: u64,
}

impl SignalState {
    /// That of the current task.
    #[inline(always)]
    pub fn current() -> Result<Self, i32> {
        let task = current();
        Ok(Self {
            blocked: read(task, config::TASK_BLOCKED.load())?,
            pending: read(task, config::TASK_PENDING.load())?,
        })
    }
}

/// The registers with which the current task entered the kernel.
pub struct UserRegisters {
    /// Instruction pointer.
    pub ip: u64,
    /// EFLAGS.
    pub flags: u64,
    /// System call number, -1 for an exception.
    pub orig_ax: i64,
}

impl UserRegisters {
    /// Those of the current task.
    #[inline(always)]
    pub fn current() -> Result<Self, i32> {
        Self::at(saved_registers()?)
    }

    /// Those at the address of a `struct pt_regs`.
    #[inline(always)]
    pub fn at(regs: u64) -> Result<Self, i32> {
        Ok(Self {
            ip: read(regs, config::PT_REGS_IP.load())?,
            flags: read(regs, config::PT_REGS_FLAGS.load())?,
            orig_ax: read(regs, config::PT_REGS_ORIG_AX.load())?,
        })
    }
}

/// Address of the current task's saved user registers (`task_pt_regs`).
#[inline(always)]
pub fn saved_registers() -> Result<u64, i32> {
    if config::HAS_TASK_PT_REGS.load() == 1 {
        // SAFETY: the helpers are there (5.15+), and the task is the current one.
        Ok(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64)
    } else {
        let stack: u64 = read(current(), config::TASK_STACK.load())?;
        Ok(stack + u64::from(config::STACK_TO_PT_REGS.load()))
    }
}
