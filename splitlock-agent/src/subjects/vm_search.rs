//! Looking for processes that have a VM, and for those that have one no more.

use std::io;

use serde::{Deserialize, Serialize};

use super::{SubjectId, paths::Paths, process, vms};

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// All processes that have a VM.
    All,
    /// The process of this thread, which has just created one.
    Creator(u32),
    /// The process of this thread, if it has none left.
    Without(u32),
}

/// A process that has a VM, or has none any more, and its comm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVm {
    /// Which.
    pub id: SubjectId,
    /// For if its process is gone before it is named.
    pub comm: Vec<u8>,
    /// Whether it has one.
    pub has_vm: bool,
}

/// Looks. Processes that are gone already are not found.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn look(paths: &Paths, look: Look) -> io::Result<Vec<FoundVm>> {
    Ok(match look {
        Look::All => vms::vms(paths)?
            .into_iter()
            .filter_map(|id| found(paths, id, true))
            .collect(),
        Look::Creator(tid) => creator(paths, tid).into_iter().collect(),
        Look::Without(tid) => without(paths, tid).into_iter().collect(),
    })
}

/// The process of a thread that has just created a VM; `None` if it is gone already, or hidden.
pub fn creator(paths: &Paths, tid: u32) -> Option<FoundVm> {
    let pid = process::thread_group(paths, tid).ok()?;
    let start_ticks = process::start_ticks(paths, pid).ok()?;
    found(paths, SubjectId { pid, start_ticks }, true)
}

/// There may be thousands of files to look through.
fn without(paths: &Paths, tid: u32) -> Option<FoundVm> {
    let pid = process::thread_group(paths, tid).ok()?;
    let start_ticks = process::start_ticks(paths, pid).ok()?;
    if vms::has_vm(paths, pid) {
        return None;
    }
    found(paths, SubjectId { pid, start_ticks }, false)
}

/// One that is gone now is found by what it did, if it did anything.
fn found(paths: &Paths, id: SubjectId, has_vm: bool) -> Option<FoundVm> {
    let comm = process::comm(paths, id.pid).ok()?;
    Some(FoundVm { id, comm, has_vm })
}
