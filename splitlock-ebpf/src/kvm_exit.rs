//! `kvm_exit` as a raw tracepoint: no record is built, and of the vCPU only what counts is read.
//!
//! The record costs several VMREADs on Intel, and its fields are then copied once more.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};
use splitlock_common::{
    Event, Hook, Loss,
    exit_reason::{Isa, is_bus_lock},
};

use crate::{
    DONE,
    config::{self, ABSENT, KVM_EXITS_LOCKS},
    exit_ledger::count_exit,
    record::Detail,
    task::read,
    trap_ledger::{count, lost},
};

/// `TP_PROTO(struct kvm_vcpu *vcpu, u32 isa)`; up to 5.15 with `unsigned int exit_reason` before
/// them.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn enter_kvm_exit_raw(ctx: RawTracePointContext) -> u32 {
    try_exit_raw(&ctx).unwrap_or_else(lost);
    DONE
}

#[inline(always)]
fn try_exit_raw(ctx: &RawTracePointContext) -> Result<(), Loss> {
    let (first, second): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let (vcpu, isa, exit_reason) = if config::EXIT_HAS_REASON.load() == 1 {
        (second, ctx.arg(2), first as u32)
    } else {
        let isa = second as u32;
        (first, isa, read_reason(first, isa)?)
    };
    count_vm_exit(ctx, isa, exit_reason, || {
        Ok(Detail {
            ip: read_guest_rip(vcpu),
            vcpu_id: read(vcpu, config::VCPU_ID.load()).map_err(|_errno| Loss::ExitUnreadable)?,
        })
    })
}

/// What every rung of `kvm_exit` does with an exit; `detail` is asked for a bus lock alone.
#[inline(always)]
pub fn count_vm_exit(
    ctx: &impl EbpfContext,
    isa: u32,
    exit_reason: u32,
    detail: impl FnOnce() -> Result<Detail, Loss>,
) -> Result<(), Loss> {
    if config::EXIT_COUNTED.load() != KVM_EXITS_LOCKS {
        count_exit(isa, exit_reason);
    }
    if is_bus_lock(isa, exit_reason) {
        let Detail { ip, vcpu_id } = detail()?;
        count_bus_lock(ctx.as_ptr(), Hook::KvmExit, ip, vcpu_id);
    }
    Ok(())
}

/// Counts a bus lock that an exit told of.
///
/// A function of its own in the object too: with its records on their stack, the programs would
/// have what they need at every exit in a cache line of its own.
#[inline(never)]
pub fn count_bus_lock(ctx: *mut c_void, hook: Hook, ip: u64, vcpu_id: u32) {
    let ctx = RawTracePointContext::new(ctx);
    let detail = Detail { ip, vcpu_id };
    count(&ctx, hook, Event::GuestBusLockReported, detail).unwrap_or_else(lost);
}

/// What `kvm_x86_ops.get_exit_info` gives as the reason. The vCPU is the first member of
/// `vcpu_vmx` and `vcpu_svm`, so its address is theirs.
#[inline(always)]
fn read_reason(vcpu: u64, isa: u32) -> Result<u32, Loss> {
    if isa == Isa::Vmx.number() && config::VMX_EXIT_REASON.load() != ABSENT {
        return read(vcpu, config::VMX_EXIT_REASON.load()).map_err(|_errno| Loss::ExitUnreadable);
    }
    if isa == Isa::Svm.number() && config::SVM_VMCB.load() != ABSENT {
        let vmcb: u64 =
            read(vcpu, config::SVM_VMCB.load()).map_err(|_errno| Loss::ExitUnreadable)?;
        // Of the 64 bits that the VMCB has, KVM's record takes the lower half too.
        return read(vmcb, config::VMCB_EXIT_CODE.load()).map_err(|_errno| Loss::ExitUnreadable);
    }
    Err(Loss::ExitUnreadable)
}

/// The guest's instruction pointer, if KVM has it at hand; else 0. On Intel it is in the VMCS until
/// somebody asks KVM for it (`vmx_cache_reg`), which a program cannot.
#[inline(always)]
fn read_guest_rip(vcpu: u64) -> u64 {
    if config::VCPU_RIP.load() == ABSENT {
        return 0;
    }
    match read::<u32>(vcpu, config::VCPU_REGS_AVAILABLE.load()) {
        Ok(available) if available & config::VCPU_RIP_AVAILABLE.load() != 0 => {
            read(vcpu, config::VCPU_RIP.load()).unwrap_or(0)
        }
        _ => 0,
    }
}
