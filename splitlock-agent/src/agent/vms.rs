//! VMs that have not run yet, or ran before the agent did: by KVM's uevents, and by the open files
//! of all processes.

use std::{collections::VecDeque, future::pending, io, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::spawn_blocking,
    time::timeout,
};
use tracing::{debug, warn};

use super::{Agent, helpers::Helpers};
use crate::{
    keeper::{Keeper, conversation::Conversation},
    readiness::Source,
    subjects::{
        paths::Paths,
        uevents::{Received, VmEvent, VmEventKind, VmEvents},
        vm_search::{self, FoundVm, Look},
    },
};

/// For one look: thousands of processes, with thousands of files each.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the process that looks waits for another question.
const REST: Duration = Duration::from_secs(10);

/// What was seen; an error in words.
type Seen = Result<Vec<FoundVm>, String>;

/// Finds VMs as they come, and those that are there already.
pub struct VmWatch {
    events: Option<Source<VmEvents>>,
    paths: Paths,
    /// What is to be looked for, in the order of the events, as each may undo what was seen before it.
    waiting: VecDeque<Look>,
    /// What is being looked for.
    at: Option<Look>,
    looks: UnboundedSender<Look>,
    seen: UnboundedReceiver<Seen>,
    kvm_was_loaded: bool,
}

impl VmWatch {
    /// Starts with a look at all processes, beside everything else: there may be thousands. To be
    /// called in a runtime.
    pub fn start(events: Option<VmEvents>, paths: Paths, helpers: &Helpers) -> Self {
        let (looks, asked) = unbounded_channel();
        let (seer, seen) = unbounded_channel();
        match helpers.keeper() {
            Some(keeper) => {
                tokio::spawn(look_by_helper(Arc::clone(keeper), asked, seer));
            }
            None => {
                tokio::spawn(look_by_thread(paths.clone(), asked, seer));
            }
        }
        let mut watch = Self {
            events: events.map(Source::new),
            paths,
            waiting: VecDeque::new(),
            at: None,
            looks,
            seen,
            kvm_was_loaded: false,
        };
        watch.look(Look::All);
        watch
    }

    /// Whether KVM came to this host since the start.
    pub const fn kvm_was_loaded(&self) -> bool {
        self.kvm_was_loaded
    }

    /// Has something looked for, unless that waits already: it will be seen as it is then.
    fn look(&mut self, look: Look) {
        let is_creation = matches!(look, Look::Creator(_));
        if is_creation || !self.waiting.contains(&look) {
            self.waiting.push_back(look);
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        if self.at.is_none()
            && let Some(look) = self.waiting.pop_front()
            && self.looks.send(look).is_ok()
        {
            self.at = Some(look);
        }
    }

    /// The process of a thread that has just created a VM, seen at once where `/proc` shows it and
    /// nothing that was seen earlier is yet to be told.
    fn creator(&mut self, tid: u32) -> Vec<FoundVm> {
        let is_quiet = self.at.is_none_or(|look| look == Look::All) && self.waiting.is_empty();
        let found = is_quiet
            .then(|| vm_search::creator(&self.paths, tid))
            .flatten();
        if found.is_none() {
            self.look(Look::Creator(tid));
        }
        found.into_iter().collect()
    }

    /// The next VMs that were found; waits for ever if there can be none.
    pub async fn next(&mut self) -> Vec<FoundVm> {
        tokio::select! {
            Some(seen) = self.seen.recv() => {
                let what = self.at.take();
                self.go_on();
                seen.unwrap_or_else(|error| {
                    warn!(error, ?what, "VMs cannot be looked for; they are found as they run");
                    vec![]
                })
            }
            event = next_event(&mut self.events) => match event {
                Ok(Some(Received::Event(VmEvent { kind: VmEventKind::Create, tid }))) => {
                    self.creator(tid)
                }
                // It may have another one.
                Ok(Some(Received::Event(VmEvent { kind: VmEventKind::Destroy, tid }))) => {
                    self.look(Look::Without(tid));
                    vec![]
                }
                Ok(Some(Received::Event(VmEvent { kind: VmEventKind::Kvm, .. }))) => {
                    self.kvm_was_loaded = true;
                    vec![]
                }
                Ok(None) => vec![],
                Ok(Some(Received::Overrun)) => {
                    debug!("uevents were lost; looking at all processes");
                    self.look(Look::All);
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

/// Looks from a thread of this process, until nobody asks any more.
async fn look_by_thread(
    paths: Paths,
    mut asked: UnboundedReceiver<Look>,
    seer: UnboundedSender<Seen>,
) {
    while let Some(look) = asked.recv().await {
        let paths = paths.clone();
        let seen = spawn_blocking(move || vm_search::look(&paths, look)).await;
        let seen = seen
            .map_err(|error| error.to_string())
            .and_then(|seen| seen.map_err(|error| error.to_string()));
        if seer.send(seen).is_err() {
            return;
        }
    }
}

/// Has processes look that the keeper starts: one at a time, and none where there is nothing to look
/// for.
async fn look_by_helper(
    keeper: Arc<Keeper>,
    mut asked: UnboundedReceiver<Look>,
    seer: UnboundedSender<Seen>,
) {
    let mut helper: Option<Conversation> = None;
    loop {
        let next = match &helper {
            None => asked.recv().await,
            Some(_) => match timeout(REST, asked.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    helper = None;
                    continue;
                }
            },
        };
        let Some(look) = next else { return };
        let mut conversation = match helper
            .take()
            .map_or_else(|| Conversation::begin(&keeper), Ok)
        {
            Ok(conversation) => conversation,
            Err(error) => {
                if seer.send(Err(error.to_string())).is_err() {
                    return;
                }
                continue;
            }
        };
        let seen = match timeout(PATIENCE, conversation.vms(look)).await {
            Ok(Ok(found)) => {
                helper = Some(conversation);
                Ok(found)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it takes too long".to_owned()),
        };
        if seer.send(seen).is_err() {
            return;
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
