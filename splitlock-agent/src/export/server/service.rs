//! What the server tells of itself.

use std::sync::Arc;

use super::{CONNECTIONS, clients::Clients, refusals::Refusals};
use crate::export::{
    exposition::web::{Reloads, Served},
    web_config::Live,
};

/// What it is asked for.
#[derive(Clone, Default)]
pub struct Service {
    /// All connections.
    pub clients: Clients,
    /// How it is configured.
    pub config: Arc<Live>,
    /// What was refused.
    pub refusals: Arc<Refusals>,
}

impl Service {
    /// For the exposition.
    pub fn served(&self) -> Served {
        Served {
            connections: self.clients.count(),
            connections_limit: CONNECTIONS,
            refused: self.refusals.counts().collect(),
            config: self.config.has_file().then(|| Reloads {
                failures: self.config.failures(),
                is_current: self.config.is_current(),
            }),
        }
    }
}
