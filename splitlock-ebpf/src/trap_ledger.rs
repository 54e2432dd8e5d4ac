//! The trap ledger: counting events per subject and for the host.

use core::ptr::NonNull;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns},
};
use aya_log_ebpf::debug;
use splitlock_common::{
    Event, EventSet, Hook, Loss,
    ledger::{EVENT_SLOTS, HostCounters, LOSS_SLOTS, TrapEntry},
};

use crate::{
    maps::{AUTHORITY, HOST, TRAPS},
    record::{Detail, tell_event},
    task::Subject,
};

/// `BPF_NOEXIST`: insert, never replace.
const NO_EXIST: u64 = 1;

/// Now, in the clock of all times here: boot time, nanoseconds.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Adds to a counter that several CPUs write, or a program that interrupts this one.
///
/// The instruction is BPF's oldest atomic one, known to every verifier. `core` offers no atomic
/// addition for BPF, as the target has no compare-and-swap on all kernels.
#[inline(always)]
fn add(counter: *mut u64, value: u64) {
    // SAFETY: every caller passes a counter inside a map value, which is aligned to 8 bytes and
    // lives as long as the program runs.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {value}",
            counter = in(reg) counter,
            value = in(reg) value,
            options(nostack)
        );
    }
}

/// Counts a loss.
#[inline(always)]
pub fn lost(loss: Loss) {
    if let Some(host) = host() {
        // SAFETY: the mask keeps the index in bounds.
        add(
            unsafe { counter(&raw mut (*host).lost, loss as usize & (LOSS_SLOTS - 1)) },
            1,
        );
    }
}

/// Counts a row of the exit ledger that got an owner.
#[inline(always)]
pub fn row_claimed() {
    if let Some(host) = host() {
        // SAFETY: a map value.
        add(unsafe { &raw mut (*host).rows_claimed }, 1);
    }
}

/// Counts one event of the current task, if `hook` is the authority for its kind.
#[inline(always)]
pub fn count(ctx: &impl EbpfContext, hook: Hook, event: Event, detail: Detail) -> Result<(), Loss> {
    let Some(counts) = AUTHORITY.get(hook as u32) else {
        return Ok(());
    };
    if !EventSet::from_bits(*counts).contains(event) {
        return Ok(());
    }
    let Some(host) = host() else { return Ok(()) };
    let index = event.index() & (EVENT_SLOTS - 1);
    // SAFETY: the mask keeps the index in bounds.
    add(unsafe { counter(&raw mut (*host).events, index) }, 1);

    let time_ns = now_ns();
    let (subject, entry) = match find(ctx, time_ns) {
        Ok(found) => found,
        Err(loss) => {
            // SAFETY: as above.
            add(unsafe { counter(&raw mut (*host).unattributed, index) }, 1);
            return Err(loss);
        }
    };
    let entry = entry.as_ptr();
    // SAFETY: a preallocated entry of the current task's subject, which the agent frees only after
    // its death; other threads write it too, so no reference is made. The mask keeps the index in
    // bounds.
    unsafe {
        add(counter(&raw mut (*entry).counts, index), 1);
        if event.is_lock() {
            (*entry).last_ns[usize::from(event.is_guest())] = time_ns;
        }
    }
    tell_event(ctx, entry, subject.key, hook, event, time_ns, detail);
    Ok(())
}

/// Adds to the time that the kernel held the current task's subject up.
#[inline(always)]
pub fn add_delay(ctx: &impl EbpfContext, is_guest: bool, delay_ns: u64) -> Result<(), Loss> {
    let (_subject, entry) = find(ctx, now_ns())?;
    // SAFETY: as in `count`.
    add(
        unsafe { &raw mut (*entry.as_ptr()).delay_ns[usize::from(is_guest)] },
        delay_ns,
    );
    Ok(())
}

#[inline(always)]
fn host() -> Option<*mut HostCounters> {
    HOST.get_ptr_mut(0)
}

/// Address of one counter of an array, without a bounds check that could panic.
///
/// # Safety
/// `index` is below `N`.
#[inline(always)]
unsafe fn counter<const N: usize>(counters: *mut [u64; N], index: usize) -> *mut u64 {
    // SAFETY: the caller's promise.
    unsafe { counters.cast::<u64>().add(index) }
}

/// The entry of the current task's subject, made at its first event.
#[inline(always)]
fn find(ctx: &impl EbpfContext, time_ns: u64) -> Result<(Subject, NonNull<TrapEntry>), Loss> {
    let subject = Subject::current()?;
    if let Some(entry) = TRAPS.get_ptr_mut(subject.key).and_then(NonNull::new) {
        return Ok((subject, entry));
    }
    let entry = TrapEntry {
        counts: [0; EVENT_SLOTS],
        delay_ns: [0; 2],
        first_ns: time_ns,
        last_ns: [0; 2],
        // SAFETY: the helper has no preconditions.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        comm: subject.comm(),
        record_window_ns: time_ns,
        record_window_count: 0,
    };
    // Another thread of the subject may have been faster: its entry is as good.
    let _ = TRAPS.insert(subject.key, entry, NO_EXIST);
    match TRAPS.get_ptr_mut(subject.key).and_then(NonNull::new) {
        Some(entry) => {
            debug!(ctx, "new subject {}", subject.key.tgid);
            Ok((subject, entry))
        }
        None => Err(Loss::TrapLedgerFull),
    }
}
