//! Records of the ring buffer: the story of single events. They may be lost without any count
//! being wrong.

use crate::ledger::{COMM_LEN, SubjectKey};

/// [`Record::kind`] of an event.
pub const KIND_EVENT: u32 = 1;
/// [`Record::kind`] of a vCPU thread that was seen for the first time.
pub const KIND_VCPU: u32 = 2;

/// One record. `repr(C)` without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// [`KIND_EVENT`] or [`KIND_VCPU`].
    pub kind: u32,
    /// Number of the [`crate::Event`]; for a vCPU, of its row in the exit ledger.
    pub event: u32,
    /// Number of the [`crate::Hook`] that saw it.
    pub hook: u32,
    /// CPU it happened on.
    pub cpu: u32,
    /// Boot time, nanoseconds.
    pub time_ns: u64,
    /// The thread group.
    pub subject: SubjectKey,
    /// The thread.
    pub tid: u32,
    /// vCPU number, [`crate::ledger::VCPU_UNKNOWN`] where not known.
    pub vcpu_id: u32,
    /// Instruction pointer of the access (guest's or user's); 0 where the hook does not tell it.
    pub ip: u64,
    /// Id of the cgroup (v2 hierarchy).
    pub cgroup_id: u64,
    /// The thread's comm.
    pub comm: [u8; COMM_LEN],
}

impl Record {
    /// Reads a record from the bytes of a ring-buffer item; `None` if the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked; every bit pattern is a valid `Record`, which has only
        // integer fields and no padding; the read does not need alignment.
        Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast::<Self>()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_no_padding_and_survives_the_trip() {
        assert_eq!(size_of::<Record>(), 16 + 8 + 16 + 8 + 8 + 8 + COMM_LEN);
        let record = Record {
            kind: KIND_EVENT,
            event: 1,
            hook: 2,
            cpu: 3,
            time_ns: 4,
            subject: SubjectKey {
                tgid: 5,
                reserved: 0,
                start_ns: 6,
            },
            tid: 7,
            vcpu_id: 8,
            ip: 9,
            cgroup_id: 10,
            comm: *b"sixteen-bytes-xx",
        };
        // SAFETY: `Record` is plain integers without padding.
        let bytes = unsafe {
            core::slice::from_raw_parts((&raw const record).cast::<u8>(), size_of::<Record>())
        };
        assert_eq!(Record::from_bytes(bytes), Some(record));
        assert_eq!(Record::from_bytes(&bytes[1..]), None);
        assert_eq!(Record::from_bytes(&[]), None);
    }
}
