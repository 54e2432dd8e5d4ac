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

/// Words of `struct pt_regs` from its begin, which are the registers at the entry to the kernel. Which
/// is which, BTF tells.
pub const PT_REGS_WORDS: usize = 21;
/// Bytes of code before the instruction pointer, and behind it, that a record has.
pub const CODE_BYTES: usize = 16;

/// [`Sight::seen`]: `before` could be read.
pub const SAW_BEFORE: u64 = 1;
/// [`Sight::seen`]: `at` could be read.
pub const SAW_AT: u64 = 2;
/// [`Sight::seen`]: the registers could be read.
pub const SAW_REGISTERS: u64 = 4;

/// [`InFile::status`]: both are told (`BPF_STACK_BUILD_ID_VALID`, include/uapi/linux/bpf.h).
pub const IN_FILE: i32 = 1;

/// A place in a file, as the kernel tells it: its `struct bpf_stack_build_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InFile {
    /// [`IN_FILE`] if the others are told.
    pub status: i32,
    /// GNU build id of the file, with zeros behind a shorter one.
    pub build_id: [u8; 20],
    /// Offset in the file.
    pub offset: u64,
}

impl InFile {
    /// Nothing is told.
    pub const UNKNOWN: Self = Self {
        status: 0,
        build_id: [0; 20],
        offset: 0,
    };
}

/// What was seen of an instruction of a process's own code. The process may end at once, and with it
/// all that could be looked at later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sight {
    /// What could be read: bits `SAW_…`.
    pub seen: u64,
    /// Where in a file it is.
    pub in_file: InFile,
    /// The code that ends at the instruction pointer.
    pub before: [u8; CODE_BYTES],
    /// The code that begins there.
    pub at: [u8; CODE_BYTES],
    /// The registers.
    pub pt_regs: [u64; PT_REGS_WORDS],
}

/// A record of an event of a process's own code. `repr(C)` without padding; told from a plain
/// record by its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UserRecord {
    /// What all records have.
    pub record: Record,
    /// What was seen of the instruction.
    pub sight: Sight,
}

impl UserRecord {
    /// Reads a record from the bytes of a ring-buffer item; `None` if the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: as in `Record::from_bytes`.
        Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast::<Self>()) })
    }
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
    fn a_user_record_has_no_padding_and_another_length() {
        let parts = size_of::<Record>() + 8 + 32 + 2 * CODE_BYTES + 8 * PT_REGS_WORDS;
        assert_eq!(size_of::<UserRecord>(), parts);
        assert_eq!(size_of::<InFile>(), 32);
        let bytes = [7; size_of::<UserRecord>()];
        let record = UserRecord::from_bytes(&bytes).unwrap();
        assert_eq!(record.record.tid, 0x0707_0707);
        assert_eq!(record.sight.at, [7; CODE_BYTES]);
        assert_eq!(Record::from_bytes(&bytes), None);
        assert_eq!(UserRecord::from_bytes(&bytes[1..]), None);
    }

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
