//! The exit ledger: counting VM exits per vCPU thread.
//!
//! What an exit costs is the memory that it finds cold, as the guest has just used the caches. So a
//! row is where its thread's number says, [`home`], and nothing is looked up. Only a thread whose
//! home is taken by another one has its row elsewhere: it is searched for when another thread
//! counted last on this CPU, and remembered. What few exits need is in [`search`], a function of its
//! own, so that the path of every exit is short.

use core::ptr::NonNull;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_cgroup_id},
};
use aya_log_ebpf::debug;
use splitlock_common::{
    Hook, Loss,
    exit_reason::{slot, userspace_slot},
    ledger::{ExitRow, ThreadIdentity, VcpuKey},
};

use crate::{
    config,
    maps::{EXIT_OWNERS, EXIT_ROWS, LAST_ROW, TAKEN_ROWS},
    record::tell_vcpu,
    task::{self, Subject},
    trap_ledger::{lost, now_ns, row_claimed},
};

/// Counts a VM exit of the current vCPU thread.
#[inline(always)]
pub fn count_exit(isa: u32, exit_reason: u32) {
    let Some(mut row) = row(Hook::KvmExit) else {
        return;
    };
    // SAFETY: a map value, written by this thread alone.
    let row = unsafe { row.as_mut() };
    row.isa = isa;
    bump(&mut row.exits, slot(isa, exit_reason));
}

/// Counts a return to the VMM of the current vCPU thread.
#[inline(always)]
pub fn count_userspace_exit(reason: u32, errno: i32) {
    let Some(mut row) = row(Hook::KvmUserspaceExit) else {
        return;
    };
    // SAFETY: a map value, written by this thread alone.
    let row = unsafe { row.as_mut() };
    bump(&mut row.userspace, userspace_slot(reason, errno));
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

/// The row of the current thread; `None` if there is none for it, which is counted as a loss.
#[inline(always)]
fn row(hook: Hook) -> Option<NonNull<ExitRow>> {
    let thread = task::thread();
    let home = thread.tid & config::EXIT_ROW_MASK.load();
    match owned(home, thread.identity) {
        Some(row) => Some(row),
        None => {
            let ThreadIdentity { task, birth } = thread.identity;
            NonNull::new(search(hook as u32, home, task, birth))
        }
    }
}

/// A row, if it is this thread's.
///
/// The row itself says whose it is, so that no harm is done where the agent has freed it, or another
/// thread has it by now.
#[inline(always)]
fn owned(index: u32, thread: ThreadIdentity) -> Option<NonNull<ExitRow>> {
    let row = EXIT_ROWS.get_ptr_mut(index)?;
    // SAFETY: a map value. The words are compared one by one, as comparing both at once is a call.
    let is_own = unsafe {
        let owner = &raw const (*row).thread;
        (*owner).task == thread.task && (*owner).birth == thread.birth
    };
    if is_own { NonNull::new(row) } else { None }
}

/// The row of a thread that is not at home; null if there is none for it.
///
/// A function of its own in the object too: the stack and the registers that it needs would
/// otherwise be set up at every exit.
#[inline(never)]
fn search(hook: u32, home: u32, task: u64, birth: u64) -> *mut ExitRow {
    let thread = ThreadIdentity { task, birth };
    // One aligned word, so it is never torn by a task that preempts this one (7.0+).
    let last = LAST_ROW.get_ptr_mut(0);
    // SAFETY: a map value of this CPU.
    if let Some(row) = last.and_then(|last| owned(unsafe { *last }, thread)) {
        return row.as_ptr();
    }
    match find_or_claim(hook, home, thread) {
        Ok((index, row)) => {
            if let Some(last) = last {
                // SAFETY: as above.
                unsafe { *last = index };
            }
            row
        }
        Err(loss) => {
            lost(loss);
            core::ptr::null_mut()
        }
    }
}

#[inline(always)]
fn find_or_claim(
    hook: u32,
    home: u32,
    thread: ThreadIdentity,
) -> Result<(u32, *mut ExitRow), Loss> {
    let subject = Subject::current()?;
    let key = VcpuKey {
        pid_tgid: bpf_get_current_pid_tgid(),
        start_ns: subject.key.start_ns,
    };
    if let Some(index) = EXIT_OWNERS.get_ptr(key) {
        // SAFETY: a map value; the agent deletes it only after the subject's death.
        let index = unsafe { *index };
        let row = EXIT_ROWS.get_ptr_mut(index).ok_or(Loss::ExitLedgerFull)?;
        // A thread of the same VM whose number is used again goes on where the one before ended.
        // SAFETY: a map value, written by the one thread that lives under this number.
        unsafe { (*row).thread = thread };
        return Ok((index, row));
    }
    let (index, row) = claim(home).ok_or(Loss::ExitLedgerFull)?;
    let time_ns = now_ns();
    // SAFETY: a free row has no writer but the thread that claimed it.
    unsafe {
        (*row).start_ns = key.start_ns;
        (*row).first_ns = time_ns;
        (*row).cgroup_id = bpf_get_current_cgroup_id();
        (*row).comm = subject.comm();
        (*row).isa = 0;
        (*row).thread = thread;
        (*row).pid_tgid = key.pid_tgid;
    }
    // From here on the agent finds it.
    if EXIT_OWNERS.insert(key, index, 0).is_err() {
        // SAFETY: as above.
        unsafe {
            (*row).pid_tgid = 0;
            (*row).thread = ThreadIdentity { task: 0, birth: 0 };
        }
        // It was put there above.
        let _ = TAKEN_ROWS.remove(index);
        return Err(Loss::ExitLedgerFull);
    }
    debug!(
        (),
        "new vCPU thread {} of {}", key.pid_tgid as u32, subject.key.tgid
    );
    row_claimed();
    tell_vcpu(subject.key, hook, time_ns, index);
    Ok((index, row))
}

/// How many rows a thread tries. In a ledger that is nine tenths full one in a thousand threads
/// finds none.
const TRIES: u32 = 64;

/// Takes a free row: the thread's home, else the next free one of a sequence whose steps grow, as
/// the vCPU threads of a VM have neighbouring numbers.
#[inline(always)]
fn claim(home: u32) -> Option<(u32, *mut ExitRow)> {
    let mut index = home;
    for step in 1..=TRIES {
        let row = EXIT_ROWS.get_ptr_mut(index)?;
        // Inserting decides between two threads that see the same row free.
        // SAFETY: a map value.
        if unsafe { (*row).pid_tgid } == 0
            && TAKEN_ROWS.insert(index, 0, u64::from(BPF_NOEXIST)).is_ok()
        {
            return Some((index, row));
        }
        index = (index + step) & config::EXIT_ROW_MASK.load();
    }
    None
}
