//! The exit ledger: counting VM exits per vCPU thread.

use core::ptr::NonNull;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_cgroup_id},
};
use aya_log_ebpf::debug;
use splitlock_common::{
    Hook, Loss,
    exit_reason::{slot, userspace_slot},
    ledger::{ExitRow, RowCache, VcpuKey},
};

use crate::{
    maps::{EXIT_OWNERS, EXIT_ROWS, FREE_ROWS, ROW_CACHE},
    record::tell_vcpu,
    task::{self, Subject},
    trap_ledger::{now_ns, row_claimed},
};

/// Counts a VM exit of the current vCPU thread.
#[inline(always)]
pub fn count_exit(ctx: &impl EbpfContext, isa: u32, exit_reason: u32) -> Result<(), Loss> {
    let mut row = row(ctx, Hook::KvmExit)?;
    // SAFETY: a map value, written by this thread alone.
    let row = unsafe { row.as_mut() };
    row.isa = isa;
    bump(&mut row.exits, slot(isa, exit_reason));
    Ok(())
}

/// Counts a return to the VMM of the current vCPU thread.
#[inline(always)]
pub fn count_userspace_exit(ctx: &impl EbpfContext, reason: u32, errno: i32) -> Result<(), Loss> {
    let mut row = row(ctx, Hook::KvmUserspaceExit)?;
    // SAFETY: a map value, written by this thread alone.
    let row = unsafe { row.as_mut() };
    bump(&mut row.userspace, userspace_slot(reason, errno));
    Ok(())
}

/// Adds one to a counter that only this thread writes.
#[inline(always)]
fn bump<const N: usize>(counters: &mut [u64; N], slot: u32) {
    let mut slot = u64::from(slot);
    // The compiler knows that a slot is in bounds and would leave the check away; the verifier
    // does not know and wants it.
    // SAFETY: copies a register onto itself.
    unsafe {
        core::arch::asm!("{slot} = {slot}", slot = inout(reg) slot, options(nomem, nostack, preserves_flags));
    }
    if slot < N as u64 {
        // SAFETY: checked above; an indexing expression would leave a panic in the program.
        *unsafe { counters.get_unchecked_mut(slot as usize) } += 1;
    }
}

/// The row of the current thread: from this CPU's cache while the same thread runs, else by a
/// search, else a free one.
#[inline(always)]
fn row(ctx: &impl EbpfContext, hook: Hook) -> Result<NonNull<ExitRow>, Loss> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let task = task::current();
    let cache = ROW_CACHE.get_ptr_mut(0).ok_or(Loss::ExitLedgerFull)?;
    // SAFETY: a map value of this CPU. Where tracepoints are preemptible (7.0+) another task may
    // write it meanwhile; a mix of two tasks' fields does no harm, as the row names its owner.
    let RowCache {
        pid_tgid: cached_pid_tgid,
        task: cached_task,
        row,
        reserved: _,
    } = unsafe { cache.read() };
    if cached_pid_tgid == pid_tgid
        && cached_task == task
        && let Some(row) = EXIT_ROWS.get_ptr_mut(row).and_then(NonNull::new)
        // A row that the agent has freed has no owner, or another one.
        // SAFETY: a map value.
        && unsafe { (*row.as_ptr()).pid_tgid } == pid_tgid
    {
        return Ok(row);
    }
    let (index, row) = search(ctx, hook, pid_tgid)?;
    let entry = RowCache {
        pid_tgid,
        task,
        row: index,
        reserved: 0,
    };
    // SAFETY: as above.
    unsafe { cache.write(entry) };
    Ok(row)
}

#[inline(always)]
fn search(
    ctx: &impl EbpfContext,
    hook: Hook,
    pid_tgid: u64,
) -> Result<(u32, NonNull<ExitRow>), Loss> {
    let subject = Subject::current()?;
    let key = VcpuKey {
        pid_tgid,
        start_ns: subject.key.start_ns,
    };
    if let Some(index) = EXIT_OWNERS.get_ptr(key) {
        // SAFETY: a map value; the agent deletes it only after the subject's death.
        let index = unsafe { *index };
        let row = EXIT_ROWS.get_ptr_mut(index).and_then(NonNull::new);
        return row.map(|row| (index, row)).ok_or(Loss::ExitLedgerFull);
    }
    let Ok(Some(index)) = FREE_ROWS.pop() else {
        return Err(Loss::ExitLedgerFull);
    };
    let Some(mut free) = EXIT_ROWS.get_ptr_mut(index).and_then(NonNull::new) else {
        return Err(Loss::ExitLedgerFull);
    };
    let time_ns = now_ns();
    // SAFETY: a free row has no writer but the thread that took it off the queue.
    let row = unsafe { free.as_mut() };
    row.start_ns = key.start_ns;
    row.first_ns = time_ns;
    // SAFETY: the helper has no preconditions.
    row.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    row.comm = subject.comm();
    row.isa = 0;
    row.pid_tgid = pid_tgid;
    // From here on the agent finds it.
    if EXIT_OWNERS.insert(key, index, 0).is_err() {
        row.pid_tgid = 0;
        // A row that could not be entered goes back; if even that fails it stays unused.
        let _ = FREE_ROWS.push(index, 0);
        return Err(Loss::ExitLedgerFull);
    }
    debug!(
        ctx,
        "new vCPU thread {} of {}", pid_tgid as u32, subject.key.tgid
    );
    row_claimed();
    tell_vcpu(subject.key, hook, time_ns, index);
    Ok((index, free))
}
