//! Who looks into other processes for the agent.

use std::sync::Arc;

use crate::{
    code::symbolizer::Symbolizer,
    confine::credentials,
    keeper::Keeper,
    subjects::{inquiries::Inquiries, paths::Paths, resolver::Resolver},
    table::snapshot::{HelperRow, PrivilegeFacts},
};

/// Who looks, and what rights that leaves to the agent.
#[derive(Clone, Debug)]
pub struct Helpers {
    keeper: Option<Arc<Keeper>>,
    privileges: PrivilegeFacts,
}

impl Helpers {
    /// The agent itself, with the rights that it was started with.
    pub fn own() -> Self {
        Self {
            keeper: None,
            privileges: PrivilegeFacts {
                dropped: false,
                user: rustix::process::geteuid().as_raw(),
                capabilities: credentials::names(),
                landlock: "none",
                seccomp: false,
                kept: vec![],
                helpers: vec![],
            },
        }
    }

    /// Processes that the keeper starts, as far as there is a keeper: the agent has no rights any more.
    pub const fn kept(keeper: Option<Arc<Keeper>>, privileges: PrivilegeFacts) -> Self {
        Self { keeper, privileges }
    }

    /// The keeper, where there is one.
    pub const fn keeper(&self) -> Option<&Arc<Keeper>> {
        self.keeper.as_ref()
    }

    /// Who says who subjects are. To be called in a runtime.
    pub fn inquiries(&self, paths: &Paths) -> Inquiries {
        match self.keeper() {
            Some(keeper) => Inquiries::of_keeper(Arc::clone(keeper)),
            None => Inquiries::of(Resolver::new(paths.clone())),
        }
    }

    /// Who says what is at an address.
    pub fn symbolizer<K>(&self, paths: &Paths) -> Symbolizer<K> {
        match self.keeper() {
            Some(keeper) => Symbolizer::of_keeper(keeper),
            None => Symbolizer::new(paths),
        }
    }

    /// What there is to show of it.
    pub fn facts<K>(&self, inquiries: &Inquiries, symbolizer: &Symbolizer<K>) -> PrivilegeFacts {
        let mut facts = self.privileges.clone();
        if let Some(keeper) = self.keeper() {
            let is_up = keeper.is_up();
            facts.helpers = vec![
                HelperRow {
                    helper: "keeper",
                    up: is_up,
                    deaths: u64::from(!is_up),
                },
                HelperRow {
                    helper: "resolver",
                    up: is_up && inquiries.is_up(),
                    deaths: inquiries.deaths(),
                },
                HelperRow {
                    helper: "symbolizer",
                    up: is_up && symbolizer.is_available(),
                    deaths: symbolizer.failures().died,
                },
            ];
        } else if facts.dropped {
            facts.helpers = vec![HelperRow {
                helper: "keeper",
                up: false,
                deaths: 0,
            }];
        }
        facts
    }
}
