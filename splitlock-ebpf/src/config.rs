//! What the agent tells the programs: read-only globals, set before they are loaded, and a few
//! settings that it may learn later.
//!
//! Field offsets come from the running kernel's BTF and tracefs `format` files, in bytes.
//! [`ABSENT`] says that this kernel has no such field. The verifier knows the values, so a
//! branch that a kernel cannot take is not even checked there.

use aya_ebpf::Global;
use splitlock_common::{Armed, Mode};

use crate::maps::SETTINGS;

/// The offset of a field that this kernel lacks.
pub const ABSENT: u32 = u32::MAX;

/// [`EXIT_COUNTED`]: of the exits of guests only those that tell of a lock are counted.
pub const KVM_EXITS_LOCKS: u32 = 1;

/// Which exception is armed, as far as the agent knows.
#[inline(always)]
pub fn armed() -> Armed {
    SETTINGS.get(0).map_or(Armed::Unknown, |settings| {
        Armed::from_number(settings.armed)
    })
}

/// The mode of detection, as far as the agent knows.
#[inline(always)]
pub fn mode() -> Mode {
    SETTINGS
        .get(0)
        .map_or(Mode::Unknown, |settings| Mode::from_number(settings.mode))
}

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            pub static $name: Global<$type> = Global::new($default);
        )*
    };
}

globals! {
    /// Which exits of guests are counted: 0 all, or [`KVM_EXITS_LOCKS`].
    ///
    /// What is read at every exit is called `EXIT_…`: the linker sorts globals by name, so these
    /// share a cache line.
    EXIT_COUNTED: u32 = 0;
    /// Rows of the exit ledger, a power of two, less one.
    EXIT_ROW_MASK: u32 = 0;
    /// `struct task_struct`: `pid`; [`ABSENT`] too where the helper `bpf_get_current_task_btf` is
    /// (before 5.11).
    EXIT_TASK_PID: u32 = ABSENT;
    /// As [`TASK_START_BOOTTIME`].
    EXIT_TASK_START: u32 = ABSENT;
    /// `struct task_struct`: `start_boottime` (5.5+, before: `real_start_time`).
    TASK_START_BOOTTIME: u32 = ABSENT;
    /// `struct task_struct`: `group_leader`.
    TASK_GROUP_LEADER: u32 = ABSENT;
    /// `struct task_struct`: `comm`.
    TASK_COMM: u32 = ABSENT;
    /// `struct task_struct`: `stack`.
    TASK_STACK: u32 = ABSENT;
    /// `struct task_struct`: `blocked`.
    TASK_BLOCKED: u32 = ABSENT;
    /// `struct task_struct`: `pending.signal`.
    TASK_PENDING: u32 = ABSENT;
    /// 1 if the helper `bpf_task_pt_regs` exists (5.15+).
    HAS_TASK_PT_REGS: u32 = 0;
    /// From the base of a task's stack to its saved user registers, where that helper is missing.
    STACK_TO_PT_REGS: u32 = ABSENT;
    /// `struct pt_regs`: `ip`.
    PT_REGS_IP: u32 = ABSENT;
    /// `struct pt_regs`: `flags`.
    PT_REGS_FLAGS: u32 = ABSENT;
    /// `struct pt_regs`: `orig_ax`.
    PT_REGS_ORIG_AX: u32 = ABSENT;
    /// `struct kernel_siginfo`: `si_code`.
    SIGINFO_CODE: u32 = ABSENT;
    /// Record of `signal_generate`: `sig`.
    SIGNAL_SIG: u32 = ABSENT;
    /// Record of `signal_generate`: `code`.
    SIGNAL_CODE: u32 = ABSENT;
    /// Record of `kvm_inj_exception`: `exception`.
    INJ_EXCEPTION: u32 = ABSENT;
    /// Record of `kvm_inj_exception`: `reinjected` (5.15+).
    INJ_REINJECTED: u32 = ABSENT;
    /// 1 if the prototype of `kvm_inj_exception` has `reinjected` as its fourth argument.
    INJ_HAS_REINJECTED: u32 = 0;
    /// Record of `kvm_userspace_exit`: `reason`.
    USERSPACE_EXIT_REASON: u32 = ABSENT;
    /// Record of `kvm_userspace_exit`: `errno`.
    USERSPACE_EXIT_ERRNO: u32 = ABSENT;
    /// Record of `kvm_exit`: `exit_reason`.
    EXIT_REASON: u32 = ABSENT;
    /// Record of `kvm_exit`: `isa`.
    EXIT_ISA: u32 = ABSENT;
    /// Record of `kvm_exit`: `guest_rip`.
    EXIT_GUEST_RIP: u32 = ABSENT;
    /// Record of `kvm_exit`: `vcpu_id`.
    EXIT_VCPU_ID: u32 = ABSENT;
    /// 1 if the prototype of `kvm_exit` begins with the reason (up to 5.15).
    EXIT_HAS_REASON: u32 = 0;
    /// `struct kvm_vcpu`: `vcpu_id`.
    VCPU_ID: u32 = ABSENT;
    /// `struct kvm_vcpu`: the guest's RIP among `arch.regs`.
    VCPU_RIP: u32 = ABSENT;
    /// `struct kvm_vcpu`: `arch.regs_avail`, which says what of `arch.regs` is up to date.
    VCPU_REGS_AVAILABLE: u32 = ABSENT;
    /// The bit of RIP in that word.
    VCPU_RIP_AVAILABLE: u32 = 0;
    /// `struct vcpu_vmx`: the exit reason.
    VMX_EXIT_REASON: u32 = ABSENT;
    /// `struct vcpu_svm`: `vmcb`.
    SVM_VMCB: u32 = ABSENT;
    /// `struct vmcb`: `control.exit_code`.
    VMCB_EXIT_CODE: u32 = ABSENT;
    /// Records that one subject may write in one second.
    RECORDS_PER_SECOND: u32 = 10;
}
