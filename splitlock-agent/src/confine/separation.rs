//! The separation of the agent's rights from the rest of it, at its start.

use std::{path::PathBuf, sync::Arc};

use tracing::{info, warn};

use super::{
    credentials,
    user::User,
    worker::{self, Needs},
};
use crate::{
    agent::helpers::Helpers,
    cli::privileges::{PrivilegeOptions, Privileges},
    keeper::Keeper,
    subjects::paths::Paths,
    table::snapshot::PrivilegeFacts,
};

/// The rights are still there; the keeper is about to be.
pub struct Separation {
    user: User,
    keeper: Option<Arc<Keeper>>,
    readable: Vec<PathBuf>,
}

impl Separation {
    /// Starts the keeper. `None` where the rights are to stay.
    ///
    /// # Errors
    /// There is no such user.
    pub fn begin(options: &PrivilegeOptions, paths: &Paths) -> Result<Option<Self>, String> {
        if options.privileges == Privileges::Keep {
            warn!("--privileges=keep: the agent keeps all rights that it was started with");
            return Ok(None);
        }
        let user = User::find(options.user.as_deref())?;
        let keeper = Keeper::start(user, paths)
            .inspect_err(|error| warn!(%error, "no process to keep the right to look into others"))
            .ok();
        Ok(Some(Self {
            user,
            keeper,
            // Its own sizes, the mode of detection, and of other processes what every user may read.
            readable: vec!["/proc".into(), paths.procfs.clone()],
        }))
    }

    /// Leaves files, or folders with all that is in them, to be read. What the user may not read stays
    /// closed.
    pub fn leave_readable(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        self.readable.extend(paths);
    }

    /// Gives up the rights, for good. To be called while the process has one thread. `reads_maps` says
    /// whether the ledgers can be read.
    pub fn complete(self, reads_maps: impl Fn() -> bool) -> Helpers {
        let Self {
            user,
            keeper,
            readable,
        } = self;
        let mut kept = vec![];
        let keeper = keeper.and_then(|keeper| match keeper.wait() {
            Ok(of_keeper) => {
                kept.extend(of_keeper.iter().map(|what| format!("keeper: {what}")));
                Some(keeper)
            }
            Err(error) => {
                warn!(%error, "no process to keep the right to look into others");
                None
            }
        });
        if keeper.is_none() {
            warn!("processes and VMs are named by what the kernel side and every user can know");
        }
        let keeps_bpf = !credentials::without(&reads_maps).unwrap_or(true);
        if keeps_bpf {
            info!(
                "this kernel reads no maps for who has no CAP_BPF (before 5.19, with \
                 kernel.unprivileged_bpf_disabled): the agent keeps that capability; loading is filtered"
            );
        }
        let needs = Needs {
            readable,
            keeps_bpf,
        };
        let done = worker::confine(user, &needs);
        kept.extend(done.kept);
        for what in &kept {
            warn!(what, "a right could not be given up");
        }
        let uid = rustix::process::getuid().as_raw();
        if !reads_maps() {
            warn!("the ledgers cannot be read any more; --privileges=keep helps");
        }
        let facts = PrivilegeFacts {
            dropped: true,
            user: uid,
            capabilities: credentials::names(),
            landlock: done.landlock,
            seccomp: done.seccomp,
            kept,
            helpers: vec![],
        };
        info!(
            user = uid,
            capabilities = facts.capabilities,
            landlock = facts.landlock,
            seccomp = facts.seccomp,
            "rights are given up"
        );
        Helpers::kept(keeper, facts)
    }
}
