//! Who a thread group is, and whether it still lives. Knows nothing of counts.

use serde::{Deserialize, Serialize};
use splitlock_common::ledger::SubjectKey;

use crate::host::clock::TICK_NS;

pub mod cgroup;
pub mod death;
pub mod identity;
pub mod inquiries;
pub mod names;
pub mod paths;
pub mod process;
pub mod resolver;
pub mod uevents;
pub mod vmm;
pub mod vms;

/// A thread group for its whole life, as both the kernel side and `/proc` can tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubjectId {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start time in ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

impl SubjectId {
    /// The id that `vm` series carry where a VM has no UUID.
    pub fn label(self) -> String {
        format!("{}-{}", self.pid, self.start_ticks)
    }
}

impl From<SubjectKey> for SubjectId {
    fn from(key: SubjectKey) -> Self {
        Self {
            pid: key.tgid,
            start_ticks: key.start_ns / TICK_NS,
        }
    }
}
