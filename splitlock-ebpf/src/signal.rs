//! `signal:signal_generate`: fatal split locks, alignment checks and killed guests.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::raw_tracepoint,
    programs::{RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::debug;
use splitlock_common::{
    Event, Hook, Loss,
    classify::{self, BUS_ADRALN, SIGBUS},
    ledger::CallKey,
};

use crate::{
    DONE,
    classic::classic_tracepoint,
    config,
    maps::CALLS,
    record::Detail,
    task::{SignalState, UserRegisters, read},
    trap_ledger::{count, lost},
};

/// `SEND_SIG_PRIV`: up to this a siginfo argument is a marker, not a pointer
/// (include/linux/sched/signal.h).
const LAST_SIGINFO_MARKER: u64 = 1;

/// `TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn enter_signal_generate_raw(ctx: RawTracePointContext) -> u32 {
    try_raw(&ctx).unwrap_or_else(lost);
    DONE
}

classic_tracepoint!(
    /// The classic rung: the same fields from the record.
    enter_signal_generate,
    "tracepoint/signal/signal_generate",
    try_classic
);

#[inline(always)]
fn try_raw(ctx: &RawTracePointContext) -> Result<(), Loss> {
    let sig: i32 = ctx.arg(0);
    if sig != SIGBUS {
        return Ok(());
    }
    let info: u64 = ctx.arg(1);
    if info <= LAST_SIGINFO_MARKER {
        return Ok(());
    }
    let code: i32 =
        read(info, config::SIGINFO_CODE.load()).map_err(|_errno| Loss::SignalUnreadable)?;
    if code != BUS_ADRALN {
        return Ok(());
    }
    try_bus_adraln(ctx)
}

#[inline(always)]
fn try_classic(ctx: &TracePointContext) -> Result<(), Loss> {
    let record = ctx.as_ptr() as u64;
    let sig: i32 =
        read(record, config::SIGNAL_SIG.load()).map_err(|_errno| Loss::SignalUnreadable)?;
    if sig != SIGBUS {
        return Ok(());
    }
    let code: i32 =
        read(record, config::SIGNAL_CODE.load()).map_err(|_errno| Loss::SignalUnreadable)?;
    if code != BUS_ADRALN {
        return Ok(());
    }
    try_bus_adraln(ctx)
}

/// A SIGBUS that says "invalid alignment": whether it is true, the sender's registers tell.
#[inline(always)]
fn try_bus_adraln(ctx: &impl EbpfContext) -> Result<(), Loss> {
    let regs = UserRegisters::current().map_err(|_errno| Loss::SignalUnreadable)?;
    let signals = SignalState::current().map_err(|_errno| Loss::SignalUnreadable)?;
    if classify::sigbus_requeued(signals.blocked, signals.pending) {
        debug!(ctx, "a SIGBUS that is sent anew");
        return Ok(());
    }
    let Some(event) = classify::sigbus(regs.orig_ax, regs.flags, config::armed()) else {
        debug!(
            ctx,
            "a SIGBUS that a process sent (system call {})", regs.orig_ax
        );
        return Ok(());
    };
    if event.is_lock() {
        mark_call(Hook::HandleGuestSplitLock);
        mark_call(Hook::HandleUserSplitLock);
        if mark_call(Hook::HandleBusLock) {
            // The signal of a bus lock, whichever exception is armed; its return counts it.
            return Ok(());
        }
    }
    let ip = match event {
        // The saved registers are the VMM's; the guest's instruction pointer is not among them.
        Event::GuestSplitLockSigbus => 0,
        _ => regs.ip,
    };
    count(ctx, Hook::SignalGenerate, event, Detail::at(ip))
}

/// Notes the signal in a call of a function that sends it, or after whose unseen return it is sent.
/// True if there is such a call.
#[inline(always)]
fn mark_call(hook: Hook) -> bool {
    let key = CallKey {
        pid_tgid: bpf_get_current_pid_tgid(),
        hook: hook as u32,
        reserved: 0,
    };
    let Some(call) = CALLS.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: an entry of the current thread alone.
    unsafe { (*call).sigbus = 1 };
    true
}
