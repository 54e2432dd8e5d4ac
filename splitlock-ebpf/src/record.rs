//! Writing the story: records for the ring buffer, limited per subject.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_current_cgroup_id, bpf_get_smp_processor_id},
    },
};
use splitlock_common::{
    Event, Hook, Loss,
    ledger::{COMM_LEN, SubjectKey, TrapEntry, VCPU_UNKNOWN},
    record::{KIND_EVENT, KIND_VCPU, Record, UserRecord},
};

use crate::{config, maps::RECORDS, sight::see, trap_ledger::lost};

const SECOND_NS: u64 = 1_000_000_000;

/// What a hook knows about one event beyond who it happened to.
#[derive(Clone, Copy)]
pub struct Detail {
    /// Instruction pointer of the access, 0 where the hook does not tell it.
    pub ip: u64,
    /// vCPU number.
    pub vcpu_id: u32,
}

impl Detail {
    /// An event of which the hook tells only where it was.
    #[inline(always)]
    pub const fn at(ip: u64) -> Self {
        Self {
            ip,
            vcpu_id: VCPU_UNKNOWN,
        }
    }
}

/// Tells the agent of one event, unless its subject has used up this second's records. A subject's
/// first event is always told: the agent learns of the subject by it.
///
/// The window's two fields are plain words: threads of one subject that race here may write a
/// few records more or fewer, and no count depends on it.
#[inline(always)]
pub fn tell_event(
    ctx: &impl EbpfContext,
    entry: *mut TrapEntry,
    subject: SubjectKey,
    hook: Hook,
    event: Event,
    time_ns: u64,
    detail: Detail,
) {
    // SAFETY: the current subject's entry of the trap ledger.
    let room = unsafe {
        if time_ns.wrapping_sub((*entry).record_window_ns) >= SECOND_NS {
            (*entry).record_window_ns = time_ns;
            (*entry).record_window_count = 0;
        }
        // The entry was made for this event.
        let room = (*entry).first_ns == time_ns
            || (*entry).record_window_count < u64::from(config::RECORDS_PER_SECOND.load());
        (*entry).record_window_count += u64::from(room);
        room
    };
    if !room {
        lost(Loss::RecordRateLimit);
        return;
    }
    if event.is_guest() {
        write(
            KIND_EVENT,
            event as u32,
            hook as u32,
            subject,
            time_ns,
            detail,
        );
    } else {
        write_user(ctx, event, hook, subject, time_ns, detail);
    }
}

/// Tells the agent of a vCPU thread seen for the first time.
#[inline(always)]
pub fn tell_vcpu(subject: SubjectKey, hook: u32, time_ns: u64, row: u32) {
    write(KIND_VCPU, row, hook, subject, time_ns, Detail::at(0));
}

#[inline(always)]
fn write(kind: u32, event: u32, hook: u32, subject: SubjectKey, time_ns: u64, detail: Detail) {
    let Some(mut room) = RECORDS.reserve(0) else {
        lost(Loss::RecordRingFull);
        return;
    };
    room.write(record(kind, event, hook, subject, time_ns, detail));
    room.submit(0);
}

/// Writes a record of an event of the process's own code, with what is to be seen of the instruction.
#[inline(always)]
fn write_user(
    ctx: &impl EbpfContext,
    event: Event,
    hook: Hook,
    subject: SubjectKey,
    time_ns: u64,
    detail: Detail,
) {
    let Some(mut room) = RECORDS.reserve_untyped::<UserRecord>(0) else {
        lost(Loss::RecordRingFull);
        return;
    };
    let place = room.as_mut_ptr();
    // SAFETY: `place` is the reserved room; it is written field by field, as the whole is too large
    // for the stack.
    unsafe {
        (&raw mut (*place).record).write(record(
            KIND_EVENT,
            event as u32,
            hook as u32,
            subject,
            time_ns,
            detail,
        ));
        see(ctx, &raw mut (*place).sight, detail.ip);
    }
    room.submit(0);
}

#[inline(always)]
fn record(
    kind: u32,
    event: u32,
    hook: u32,
    subject: SubjectKey,
    time_ns: u64,
    detail: Detail,
) -> Record {
    Record {
        kind,
        event,
        hook,
        // SAFETY: the helper has no preconditions.
        cpu: unsafe { bpf_get_smp_processor_id() },
        time_ns,
        subject,
        tid: bpf_get_current_pid_tgid() as u32,
        vcpu_id: detail.vcpu_id,
        ip: detail.ip,
        // SAFETY: the helper has no preconditions.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        comm: bpf_get_current_comm().unwrap_or([0; COMM_LEN]),
    }
}
