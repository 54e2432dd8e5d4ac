//! KVM's tracepoints: exits, returns to the VMM, and exceptions put into guests.

use aya_ebpf::{
    EbpfContext,
    macros::raw_tracepoint,
    programs::{RawTracePointContext, TracePointContext},
};
use splitlock_common::{Event, Hook, Loss, classify, ledger::VCPU_UNKNOWN};

use crate::{
    DONE,
    classic::classic_tracepoint,
    config::{self, ABSENT, KVM_EXITS_LOCKS},
    exit_ledger::count_userspace_exit,
    kvm_exit::{count_bus_lock, count_vm_exit},
    record::Detail,
    task::read,
    trace_record::read_u32,
    trap_ledger::{count, lost},
};

/// `TP_PROTO(unsigned exception, bool has_error, unsigned error_code, bool reinjected)`; up to
/// 5.14 without the last.
#[raw_tracepoint(tracepoint = "kvm_inj_exception")]
pub fn enter_kvm_inj_exception_raw(ctx: RawTracePointContext) -> u32 {
    let reinjected = config::INJ_HAS_REINJECTED.load() == 1 && ctx.arg::<u8>(3) != 0;
    try_inj_exception(&ctx, ctx.arg(0), reinjected).unwrap_or_else(lost);
    DONE
}

classic_tracepoint!(
    /// The classic rung: the same fields from the record.
    enter_kvm_inj_exception,
    "tracepoint/kvm/kvm_inj_exception",
    try_inj_exception_record
);

#[inline(always)]
fn try_inj_exception_record(ctx: &TracePointContext) -> Result<(), Loss> {
    let record = ctx.as_ptr() as u64;
    let vector: u8 =
        read(record, config::INJ_EXCEPTION.load()).map_err(|_errno| Loss::ExitUnreadable)?;
    let offset = config::INJ_REINJECTED.load();
    let reinjected = if offset == ABSENT {
        0
    } else {
        read::<u8>(record, offset).map_err(|_errno| Loss::ExitUnreadable)?
    };
    try_inj_exception(ctx, u32::from(vector), reinjected != 0)
}

#[inline(always)]
fn try_inj_exception(ctx: &impl EbpfContext, vector: u32, reinjected: bool) -> Result<(), Loss> {
    match classify::injected_exception(vector, reinjected) {
        Some(event) => count(ctx, Hook::KvmInjException, event, Detail::at(0)),
        None => Ok(()),
    }
}

/// `TP_PROTO(__u32 reason, int errno)`
#[raw_tracepoint(tracepoint = "kvm_userspace_exit")]
pub fn enter_kvm_userspace_exit_raw(ctx: RawTracePointContext) -> u32 {
    userspace_exit(&ctx, ctx.arg(0), ctx.arg(1));
    DONE
}

classic_tracepoint!(
    /// The classic rung: the same fields from the record.
    enter_kvm_userspace_exit,
    "tracepoint/kvm/kvm_userspace_exit",
    try_userspace_exit_record
);

#[inline(always)]
fn try_userspace_exit_record(ctx: &TracePointContext) -> Result<(), Loss> {
    let unreadable = |_errno| Loss::ExitUnreadable;
    let reason = read_u32(ctx, config::USERSPACE_EXIT_REASON.load()).map_err(unreadable)?;
    let errno = read_u32(ctx, config::USERSPACE_EXIT_ERRNO.load()).map_err(unreadable)?;
    userspace_exit(ctx, reason, errno.cast_signed());
    Ok(())
}

#[inline(always)]
fn userspace_exit(ctx: &impl EbpfContext, reason: u32, errno: i32) {
    if config::EXIT_COUNTED.load() != KVM_EXITS_LOCKS {
        count_userspace_exit(reason, errno);
    }
    if classify::userspace_exit(reason, errno) == Some(Event::GuestBusLockReported) {
        count_bus_lock(ctx.as_ptr(), Hook::KvmUserspaceExit, 0, VCPU_UNKNOWN);
    }
}

classic_tracepoint!(
    /// The classic record of `kvm_exit`; its layout differs between kernels.
    enter_kvm_exit,
    "tracepoint/kvm/kvm_exit",
    try_exit
);

/// The same record, laid out by whoever runs this by `BPF_PROG_TEST_RUN`: a raw tracepoint's context
/// is then the caller's bytes. It is attached to nothing; tests count exits by it that no CPU at
/// hand makes.
#[raw_tracepoint]
pub fn enter_kvm_exit_given(ctx: RawTracePointContext) -> u32 {
    try_exit(&ctx).unwrap_or_else(lost);
    DONE
}

#[inline(always)]
fn try_exit(ctx: &impl EbpfContext) -> Result<(), Loss> {
    let unreadable = |_errno| Loss::ExitUnreadable;
    let exit_reason = read_u32(ctx, config::EXIT_REASON.load()).map_err(unreadable)?;
    let isa = read_u32(ctx, config::EXIT_ISA.load()).map_err(unreadable)?;
    count_vm_exit(ctx, isa, exit_reason, || {
        let record = ctx.as_ptr() as u64;
        Ok(Detail {
            ip: read(record, config::EXIT_GUEST_RIP.load()).map_err(unreadable)?,
            vcpu_id: read(record, config::EXIT_VCPU_ID.load()).map_err(unreadable)?,
        })
    })
}
