//! VMs that have not run yet, or ran before the agent did: by KVM's uevents, and by the open files
//! of all processes.

use std::{collections::HashMap, future::pending, io, mem, sync::mpsc, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, warn};

use super::Agent;
use crate::{
    readiness::Source,
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
    events: Option<Source<VmEvents>>,
    paths: Paths,
    scans: UnboundedReceiver<Vec<FoundVm>>,
    scanner: UnboundedSender<Vec<FoundVm>>,
    is_scanning: bool,
    scan_again: bool,
    /// Processes that ended a VM, whose files are looked through for another one; true if they began
    /// or ended one since. There may be thousands of files.
    looks: HashMap<u32, bool>,
    looked: UnboundedReceiver<(u32, Option<FoundVm>)>,
    looker: UnboundedSender<(u32, Option<FoundVm>)>,
    /// Gives pids to the thread that looks; `None` until there is one.
    asked: Option<mpsc::Sender<u32>>,
}

impl VmWatch {
    /// Starts with a look at all processes, in a thread of its own: there may be thousands.
    pub fn start(events: Option<VmEvents>, paths: Paths) -> Self {
        let (scanner, scans) = unbounded_channel();
        let (looker, looked) = unbounded_channel();
        let mut watch = Self {
            events: events.map(Source::new),
            paths,
            scans,
            scanner,
            is_scanning: false,
            scan_again: false,
            looks: HashMap::new(),
            looked,
            looker,
            asked: None,
        };
        watch.scan();
        watch
    }

    /// Looks at all processes, once at a time.
    fn scan(&mut self) {
        if self.is_scanning {
            self.scan_again = true;
        } else {
            self.start_scan();
        }
    }

    fn start_scan(&mut self) {
        let (paths, scanner) = (self.paths.clone(), self.scanner.clone());
        let look = move || match vms::vms(&paths) {
            Ok(ids) => {
                let found = ids.into_iter().filter_map(|id| found(&paths, id)).collect();
                // The agent may be ending.
                let _ = scanner.send(found);
            }
            Err(error) => {
                warn!(%error, "VMs that are there already cannot be looked for");
                let _ = scanner.send(vec![]);
            }
        };
        let started = thread::Builder::new()
            .name("vm-scan".to_owned())
            .spawn(look);
        self.is_scanning = started
            .inspect_err(|error| warn!(%error, "no thread to look for VMs"))
            .is_ok();
    }

    /// Has another thread see whether a process has a VM left, each process once at a time.
    fn look(&mut self, pid: u32) {
        if let Some(again) = self.looks.get_mut(&pid) {
            *again = true;
            return;
        }
        if self.asked.is_none() {
            self.asked = self
                .start_looking()
                .inspect_err(|error| warn!(%error, "no thread to see whether VMs have ended"))
                .ok();
        }
        if let Some(asked) = &self.asked
            && asked.send(pid).is_ok()
        {
            self.looks.insert(pid, false);
        }
    }

    fn start_looking(&self) -> io::Result<mpsc::Sender<u32>> {
        let (asked, pids) = mpsc::channel();
        let (paths, looker) = (self.paths.clone(), self.looker.clone());
        thread::Builder::new()
            .name("vm-files".to_owned())
            .spawn(move || {
                for pid in pids {
                    let without = process::start_ticks(&paths, pid)
                        .ok()
                        .filter(|_| !vms::has_vm(&paths, pid))
                        .and_then(|start_ticks| found(&paths, SubjectId { pid, start_ticks }))
                        .map(|found| FoundVm {
                            has_vm: false,
                            ..found
                        });
                    if looker.send((pid, without)).is_err() {
                        break;
                    }
                }
            })?;
        Ok(asked)
    }

    /// The next VMs that were found; waits for ever if there can be none.
    pub async fn next(&mut self) -> Vec<FoundVm> {
        tokio::select! {
            Some(found) = self.scans.recv() => {
                if mem::replace(&mut self.scan_again, false) {
                    self.start_scan();
                } else {
                    self.is_scanning = false;
                }
                found
            }
            Some((pid, without)) = self.looked.recv() => {
                // What was seen may be of before what happened since.
                if self.looks.remove(&pid) == Some(true) {
                    self.look(pid);
                    return vec![];
                }
                without.into_iter().collect()
            }
            event = next_event(&mut self.events) => match event {
                Ok(Some(Received::Event(VmEvent { kind, tid }))) => {
                    match kind {
                        VmEventKind::Create => {
                            let owner = owner(&self.paths, tid);
                            if let Some(again) = owner
                                .as_ref()
                                .and_then(|owner| self.looks.get_mut(&owner.id.pid))
                            {
                                *again = true;
                            }
                            owner.into_iter().collect()
                        }
                        // It may have another one.
                        VmEventKind::Destroy => {
                            if let Ok(pid) = process::thread_group(&self.paths, tid) {
                                self.look(pid);
                            }
                            vec![]
                        }
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

async fn next_event(events: &mut Option<Source<VmEvents>>) -> io::Result<Option<Received>> {
    let Some(events) = events else {
        return pending().await;
    };
    let mut ready = events.registered()?.readable().await?;
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
