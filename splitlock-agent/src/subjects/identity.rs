//! What is known of a subject but its counts.

use serde::{Deserialize, Serialize};

use super::{SubjectId, cgroup::CgroupIdentity, vmm::VmNaming};

/// What the kernel side wrote down at a subject's first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The group leader's comm, without padding.
    pub comm: &'a [u8],
    /// Id of its cgroup in the v2 hierarchy; 0 where it is not known.
    pub cgroup_id: u64,
}

/// A subject that nobody has named yet, and what the kernel side wrote down of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Who.
    pub subject: SubjectId,
    /// The group leader's comm when it was first heard of.
    pub comm: String,
    /// Id of its cgroup in the v2 hierarchy then; 0 where nobody told it.
    pub cgroup_id: u64,
    /// Whether it is a VM.
    pub is_vm: bool,
}

impl Question {
    /// What the kernel side knows.
    pub fn seen(&self) -> Seen<'_> {
        Seen {
            comm: self.comm.as_bytes(),
            cgroup_id: self.cgroup_id,
        }
    }
}

/// Who a subject is. All texts are printable and bounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The thread group.
    pub subject: SubjectId,
    /// The group leader's comm at the first event.
    pub comm: String,
    /// The file it runs, as its own mount namespace names it.
    pub exe: Option<String>,
    /// The first 256 bytes of its arguments, with spaces between them.
    pub command_line: Option<String>,
    /// Its cgroup.
    pub cgroup: Option<CgroupIdentity>,
    /// What it is called as a VM.
    pub vm: VmNaming,
    /// Whether the question was about a VM: an earlier answer may be of the program before.
    pub is_vm: bool,
    /// What could not be learnt.
    pub missing: Vec<Missing>,
}

/// A fact that could not be learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub fact: Fact,
    /// Why.
    pub why: Why,
}

/// A fact of an [`Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// [`Identity::exe`].
    Exe,
    /// [`Identity::command_line`].
    CommandLine,
    /// [`Identity::cgroup`].
    Cgroup,
}

/// Why a fact could not be learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The process had ended, or its pid was another's.
    Ended,
    /// `/proc` did not answer in time.
    Overdue,
    /// The file could not be read or understood, or there was none.
    Unreadable,
}
