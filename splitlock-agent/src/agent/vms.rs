//! VMs that have not run yet, or ran before the agent did: by KVM's uevents, and by the open files
//! of all processes.

use std::{future::pending, io, thread};

use tokio::{
    io::unix::AsyncFd,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tracing::{debug, warn};

use super::Agent;
use crate::{
    readiness::readable,
    subjects::{
        SubjectId,
        paths::Paths,
        process,
        uevents::{Received, VmEvent, VmEventKind, VmEvents},
        vms,
    },
};

/// A process that has a VM, or has none any more, and its comm.
pub struct FoundVm {
    id: SubjectId,
    comm: Vec<u8>,
    has_vm: bool,
}

/// Finds VMs as they come, and those that are there already.
pub struct VmWatch {
    events: Option<AsyncFd<VmEvents>>,
    paths: Paths,
    scans: UnboundedReceiver<Vec<FoundVm>>,
    scanner: UnboundedSender<Vec<FoundVm>>,
}

impl VmWatch {
    /// Starts with a look at all processes, in a thread of its own: there may be thousands.
    pub fn start(events: Option<VmEvents>, paths: Paths) -> Self {
        let events = events.and_then(|events| {
            readable(events)
                .inspect_err(|error| warn!(%error, "KVM's uevents cannot be waited for"))
                .ok()
        });
        let (scanner, scans) = unbounded_channel();
        let watch = Self {
            events,
            paths,
            scans,
            scanner,
        };
        watch.scan();
        watch
    }

    fn scan(&self) {
        let (paths, scanner) = (self.paths.clone(), self.scanner.clone());
        let look = move || match vms::vms(&paths) {
            Ok(ids) => {
                let found = ids.into_iter().filter_map(|id| found(&paths, id)).collect();
                // The agent may be ending.
                let _ = scanner.send(found);
            }
            Err(error) => warn!(%error, "VMs that are there already cannot be looked for"),
        };
        if let Err(error) = thread::Builder::new()
            .name("vm-scan".to_owned())
            .spawn(look)
        {
            warn!(%error, "no thread to look for VMs");
        }
    }

    /// The next VMs that were found; waits for ever if there can be none.
    pub async fn next(&mut self) -> Vec<FoundVm> {
        tokio::select! {
            Some(found) = self.scans.recv() => found,
            event = next_event(&mut self.events) => match event {
                Ok(Some(Received::Event(VmEvent { kind, tid }))) => {
                    let owner = owner(&self.paths, tid);
                    match kind {
                        VmEventKind::Create => owner.into_iter().collect(),
                        // It may have another one.
                        VmEventKind::Destroy => owner
                            .filter(|owner| !vms::has_vm(&self.paths, owner.id.pid))
                            .map(|owner| FoundVm {
                                has_vm: false,
                                ..owner
                            })
                            .into_iter()
                            .collect(),
                    }
                }
                Ok(None) => vec![],
                Ok(Some(Received::Overrun)) => {
                    debug!("uevents were lost; looking at all processes");
                    self.scan();
                    vec![]
                }
                Err(error) => {
                    warn!(%error, "KVM's uevents cannot be read any more; VMs are found as they run");
                    self.events = None;
                    vec![]
                }
            },
        }
    }
}

async fn next_event(events: &mut Option<AsyncFd<VmEvents>>) -> io::Result<Option<Received>> {
    let Some(events) = events else {
        return pending().await;
    };
    let mut ready = events.readable().await?;
    let event = ready.get_inner().next()?;
    if event.is_none() {
        ready.clear_ready();
    }
    Ok(event)
}

/// The process of a thread that has just created a VM; `None` if it is gone already.
fn owner(paths: &Paths, tid: u32) -> Option<FoundVm> {
    let pid = process::thread_group(paths, tid).ok()?;
    let start_ticks = process::start_ticks(paths, pid).ok()?;
    found(paths, SubjectId { pid, start_ticks })
}

/// With its comm, for if its process is gone before it is named. One that is gone now is found by
/// what it did, if it did anything.
fn found(paths: &Paths, id: SubjectId) -> Option<FoundVm> {
    let comm = process::comm(paths, id.pid).ok()?;
    Some(FoundVm {
        id,
        comm,
        has_vm: true,
    })
}

impl Agent {
    /// Takes VMs in.
    pub(super) fn meet_vms(&mut self, found: &[FoundVm]) {
        for FoundVm { id, comm, has_vm } in found {
            if !has_vm {
                self.table.lose_vm(*id);
            } else if self.table.meet_vm(*id, comm) {
                self.watch(*id);
            }
        }
    }
}
