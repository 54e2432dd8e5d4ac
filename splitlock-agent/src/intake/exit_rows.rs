//! The rows of the exit ledger, mapped into the agent's memory.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
};

use splitlock_common::{
    exit_reason::{EXIT_SLOTS, USERSPACE_SLOTS},
    ledger::{ExitRow, ROWS_PER_PART, ThreadIdentity, VcpuKey},
};

use tracing::warn;

use super::mapped::Mapped;

/// Counters of a VM: the sum over its vCPU threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitTally {
    /// Instruction set of the exits, 0 while none was seen.
    pub isa: u32,
    /// vCPU threads, also those that have ended.
    pub vcpus: u32,
    /// Those that have not: by thread id, with the vCPU's number where it is known.
    pub threads: BTreeMap<u32, Option<u32>>,
    /// VM exits by slot.
    pub exits: Box<[u64; EXIT_SLOTS]>,
    /// Returns to the VMM by slot.
    pub userspace: Box<[u64; USERSPACE_SLOTS]>,
}

impl Default for ExitTally {
    fn default() -> Self {
        Self {
            isa: 0,
            vcpus: 0,
            threads: BTreeMap::new(),
            exits: Box::new([0; EXIT_SLOTS]),
            userspace: Box::new([0; USERSPACE_SLOTS]),
        }
    }
}

impl ExitTally {
    /// Adds counters of threads that have gone.
    pub fn add(&mut self, past: &Self) {
        if self.isa == 0 {
            self.isa = past.isa;
        }
        self.vcpus += past.vcpus;
        let exits = self.exits.iter_mut().zip(past.exits.iter());
        let userspace = self.userspace.iter_mut().zip(past.userspace.iter());
        for (sum, count) in exits.chain(userspace) {
            *sum += count;
        }
    }
}

/// What a row says of its VM beside the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHead {
    /// Boot time of the first exit, nanoseconds.
    pub first_ns: u64,
    /// Id of the VMM's cgroup.
    pub cgroup_id: u64,
    /// The VMM's comm.
    pub comm: [u8; 16],
}

/// The rows, mapped part by part as they are asked for: most hosts use few of them.
pub struct ExitRows {
    array: OwnedFd,
    count: u32,
    parts: Vec<OnceCell<Mapped<ExitRow>>>,
}

impl ExitRows {
    /// The rows of the array map behind `fd`, which has `count` of them.
    pub fn map(fd: impl AsFd, count: u32) -> io::Result<Self> {
        let parts = count.div_ceil(ROWS_PER_PART);
        Ok(Self {
            array: fd.as_fd().try_clone_to_owned()?,
            count,
            parts: (0..parts).map(|_| OnceCell::new()).collect(),
        })
    }

    /// Address of a row, valid as long as this value lives.
    fn get(&self, index: u32) -> Option<*mut ExitRow> {
        let part = self.parts.get((index / ROWS_PER_PART) as usize)?;
        let rows = match part.get() {
            Some(rows) => rows,
            None => {
                let first = index - index % ROWS_PER_PART;
                let count = ROWS_PER_PART.min(self.count - first);
                let rows = Mapped::map_part(&self.array, first, count)
                    .inspect_err(|error| warn!(%error, "rows of the exit ledger cannot be mapped"))
                    .ok()?;
                part.get_or_init(|| rows)
            }
        };
        rows.get(index % ROWS_PER_PART)
    }

    /// Whether a row belongs to a vCPU thread now.
    pub fn is_owned_by(&self, index: u32, vcpu: &VcpuKey) -> bool {
        self.get(index).is_some_and(|row| {
            // SAFETY: in bounds; aligned words are never torn.
            unsafe {
                (&raw const (*row).pid_tgid).read_volatile() == vcpu.pid_tgid
                    && (&raw const (*row).start_ns).read_volatile() == vcpu.start_ns
            }
        })
    }

    /// The thread that counts into a row now, or did last.
    pub fn thread(&self, index: u32) -> Option<ThreadIdentity> {
        let row = self.get(index)?;
        // SAFETY: in bounds; a torn value is that of a thread that lives.
        Some(unsafe { (&raw const (*row).thread).read_volatile() })
    }

    /// What a row says beside its counters.
    pub fn head(&self, index: u32) -> Option<RowHead> {
        let row = self.get(index)?;
        // SAFETY: in bounds; these fields are written before the row's owner can be found, and not
        // again while it lives.
        unsafe {
            Some(RowHead {
                first_ns: (&raw const (*row).first_ns).read_volatile(),
                cgroup_id: (&raw const (*row).cgroup_id).read_volatile(),
                comm: (&raw const (*row).comm).read_volatile(),
            })
        }
    }

    /// Adds a row's counters to a VM's.
    pub fn add_to(&self, index: u32, tally: &mut ExitTally) {
        let Some(row) = self.get(index) else { return };
        tally.vcpus += 1;
        // SAFETY: in bounds; aligned words are never torn.
        unsafe {
            let isa = (&raw const (*row).isa).read_volatile();
            if isa != 0 {
                tally.isa = isa;
            }
            let exits = (&raw const (*row).exits).cast::<u64>();
            for (slot, sum) in tally.exits.iter_mut().enumerate() {
                *sum += exits.add(slot).read_volatile();
            }
            let userspace = (&raw const (*row).userspace).cast::<u64>();
            for (slot, sum) in tally.userspace.iter_mut().enumerate() {
                *sum += userspace.add(slot).read_volatile();
            }
        }
    }

    /// Clears a row whose owner has died, for its next one.
    pub fn clear(&mut self, index: u32) {
        let Some(row) = self.get(index) else { return };
        // SAFETY: in bounds; its owner is dead and the row is still taken, so nobody else writes.
        unsafe {
            row.write_volatile(ExitRow {
                thread: ThreadIdentity::default(),
                pid_tgid: 0,
                start_ns: 0,
                first_ns: 0,
                cgroup_id: 0,
                comm: [0; 16],
                isa: 0,
                reserved: 0,
                exits: [0; EXIT_SLOTS],
                userspace: [0; USERSPACE_SLOTS],
                padding: 0,
            });
        }
    }
}

#[cfg(test)]
impl ExitRows {
    /// Free rows in memory of their own.
    pub fn in_memory(count: u32) -> Self {
        use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
        let memory = memfd_create("rows", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, u64::from(count) * size_of::<ExitRow>() as u64).unwrap();
        Self::map(memory, count).unwrap()
    }

    /// What the kernel side does at a thread's first returns to its VMM.
    pub fn claim(&mut self, index: u32, vcpu: VcpuKey, returns: u64) {
        self.clear(index);
        let row = self.get(index).unwrap();
        // SAFETY: in bounds of memory that nobody else has.
        unsafe {
            (*row).pid_tgid = vcpu.pid_tgid;
            (*row).start_ns = vcpu.start_ns;
            (*row).userspace[0] = returns;
        }
    }
}
