//! The kernel's split-lock functions, by fentry/fexit or by kprobe/kretprobe.
//!
//! <https://github.com/torvalds/linux/blob/v6.18/arch/x86/kernel/cpu/bus_lock.c>
//! The entry notes what the call is about, the return decides the outcome.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use splitlock_common::{
    Event, Hook, Loss,
    classify::{self, SYSCALL_IOCTL},
    ledger::{Call, CallKey},
};

use crate::{
    DONE, config,
    maps::CALLS,
    record::Detail,
    task::UserRegisters,
    trap_ledger::{add_delay, count, lost, now_ns},
};

/// Makes the four entries of one function: fentry, fexit, kprobe, kretprobe.
/// `$returned` is the number of arguments, where a tracing program finds the returned value.
macro_rules! function {
    (
        $open:ident, $close:ident, returned at $returned:literal;
        $fentry:ident, $fexit:ident, $kprobe:ident, $kretprobe:ident
    ) => {
        #[fentry]
        pub fn $fentry(ctx: FEntryContext) -> i32 {
            $open(&ctx, ctx.arg(0)).unwrap_or_else(lost);
            DONE as i32
        }

        #[fexit]
        pub fn $fexit(ctx: FExitContext) -> i32 {
            $close(&ctx, ctx.arg($returned)).unwrap_or_else(lost);
            DONE as i32
        }

        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            $open(&ctx, ctx.arg(0).unwrap_or(0)).unwrap_or_else(lost);
            DONE
        }

        #[kretprobe]
        pub fn $kretprobe(ctx: RetProbeContext) -> u32 {
            $close(&ctx, ctx.ret()).unwrap_or_else(lost);
            DONE
        }
    };
}

// bool handle_user_split_lock(struct pt_regs *regs, long error_code)
function! {
    open_user, close_user, returned at 2;
    fentry_handle_user_split_lock, fexit_handle_user_split_lock,
    kprobe_handle_user_split_lock, kretprobe_handle_user_split_lock
}

// bool handle_guest_split_lock(unsigned long ip)
function! {
    open_guest, close_guest, returned at 1;
    fentry_handle_guest_split_lock, fexit_handle_guest_split_lock,
    kprobe_handle_guest_split_lock, kretprobe_handle_guest_split_lock
}

// void handle_bus_lock(struct pt_regs *regs); the first argument stands in for the result.
function! {
    open_bus, close_bus, returned at 0;
    fentry_handle_bus_lock, fexit_handle_bus_lock,
    kprobe_handle_bus_lock, kretprobe_handle_bus_lock
}

// static void split_lock_warn(unsigned long ip); likewise.
function! {
    open_warn, close_warn, returned at 0;
    fentry_split_lock_warn, fexit_split_lock_warn,
    kprobe_split_lock_warn, kretprobe_split_lock_warn
}

#[inline(always)]
fn open_user(ctx: &impl EbpfContext, regs: u64) -> Result<(), Loss> {
    open_with_registers(ctx, Hook::HandleUserSplitLock, regs)
}

#[inline(always)]
fn close_user(ctx: &impl EbpfContext, handled: u8) -> Result<(), Loss> {
    let call = close(Hook::HandleUserSplitLock)?;
    let event = classify::user_split_lock(call.eflags, handled != 0);
    count(ctx, Hook::HandleUserSplitLock, event, Detail::at(call.ip))
}

#[inline(always)]
fn open_guest(ctx: &impl EbpfContext, ip: u64) -> Result<(), Loss> {
    open(ctx, Hook::HandleGuestSplitLock, ip, 0)
}

#[inline(always)]
fn close_guest(ctx: &impl EbpfContext, handled: u8) -> Result<(), Loss> {
    let call = close(Hook::HandleGuestSplitLock)?;
    let event = classify::guest_split_lock(handled != 0);
    count(ctx, Hook::HandleGuestSplitLock, event, Detail::at(call.ip))
}

#[inline(always)]
fn open_bus(ctx: &impl EbpfContext, regs: u64) -> Result<(), Loss> {
    open_with_registers(ctx, Hook::HandleBusLock, regs)
}

#[inline(always)]
fn close_bus(ctx: &impl EbpfContext, _nothing: u64) -> Result<(), Loss> {
    let call = close(Hook::HandleBusLock)?;
    let inside_ns = now_ns().wrapping_sub(call.entered_ns);
    match classify::user_bus_lock(call.sigbus != 0, inside_ns, config::mode()) {
        Some(event) => {
            count(ctx, Hook::HandleBusLock, event, Detail::at(call.ip))?;
            match event {
                Event::UserBusLockThrottled => add_delay(ctx, false, inside_ns),
                _ => Ok(()),
            }
        }
        None => Ok(()),
    }
}

#[inline(always)]
fn open_warn(ctx: &impl EbpfContext, ip: u64) -> Result<(), Loss> {
    open(ctx, Hook::SplitLockWarn, ip, 0)
}

#[inline(always)]
fn close_warn(ctx: &impl EbpfContext, _nothing: u64) -> Result<(), Loss> {
    let call = close(Hook::SplitLockWarn)?;
    let delay_ns = now_ns().wrapping_sub(call.entered_ns);
    // `split_lock_warn` runs for both; a guest's trap comes inside the VMM's ioctl.
    let regs = UserRegisters::current().map_err(|_errno| Loss::CallUntracked)?;
    add_delay(ctx, regs.orig_ax == SYSCALL_IOCTL, delay_ns)
}

#[inline(always)]
fn open_with_registers(ctx: &impl EbpfContext, hook: Hook, regs: u64) -> Result<(), Loss> {
    let regs = UserRegisters::at(regs).map_err(|_errno| Loss::CallUntracked)?;
    open(ctx, hook, regs.ip, regs.flags)
}

/// A call of this thread that is still open has returned unseen: kretprobes have a pool, which
/// sleepers in the penalty can empty, and the kernel skips a program that it is running on that CPU
/// already. What it was about counts all the same; only its delay is lost.
#[inline(always)]
fn open(ctx: &impl EbpfContext, hook: Hook, ip: u64, eflags: u64) -> Result<(), Loss> {
    let call = Call {
        entered_ns: now_ns(),
        ip,
        eflags,
        sigbus: 0,
    };
    let unseen = close(hook).ok();
    CALLS
        .insert(key(hook), call, 0)
        .map_err(|_errno| Loss::CallUntracked)?;
    let Some(unseen) = unseen else { return Ok(()) };
    lost(Loss::ReturnUnseen);
    match classify::unseen_return(hook, unseen.eflags, unseen.sigbus != 0, config::mode()) {
        Some(event) => count(ctx, hook, event, Detail::at(unseen.ip)),
        None => Ok(()),
    }
}

/// The call that returns now. None is one that began before the entry was attached, or found no
/// room.
#[inline(always)]
fn close(hook: Hook) -> Result<Call, Loss> {
    let key = key(hook);
    // SAFETY: an entry of the current thread; it is copied before it is removed.
    let call = unsafe { CALLS.get(key) }
        .copied()
        .ok_or(Loss::CallUntracked)?;
    let _ = CALLS.remove(key);
    Ok(call)
}

#[inline(always)]
fn key(hook: Hook) -> CallKey {
    CallKey {
        pid_tgid: bpf_get_current_pid_tgid(),
        hook: hook as u32,
        reserved: 0,
    }
}
