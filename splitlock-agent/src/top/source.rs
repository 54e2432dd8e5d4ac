//! Where the pictures come from.

use std::{net::TcpStream, time::Duration};

use anyhow::{Result, anyhow};

use super::{
    answer::{Answer, Detail},
    own::Own,
    remote::Remote,
};
use crate::{
    cli::{
        remote::{DEFAULT_ADDRESS, DEFAULT_URL},
        top::TopOptions,
    },
    subjects::SubjectId,
};

/// For an agent of this host to take a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// An agent that is running, or one inside.
pub enum Source {
    /// Through its API.
    Remote(Remote),
    /// Own probes.
    Own(Own),
}

impl Source {
    /// What the command line says, or what is there. To be called while the process has one thread.
    ///
    /// # Errors
    /// Why there is none, and what to do about it.
    pub fn find(options: &TopOptions) -> Result<Self> {
        if let Some(url) = &options.url {
            return Ok(Self::Remote(Remote::new(url, &options.remote)?));
        }
        // Not by an HTTP request: its threads would not share the mount namespace that own probes
        // may make.
        let refused = match TcpStream::connect_timeout(&DEFAULT_ADDRESS, PATIENCE) {
            Ok(_) => return Ok(Self::Remote(Remote::new(DEFAULT_URL, &options.remote)?)),
            Err(error) => error,
        };
        Own::start(&options.counting)
            .map(Self::Own)
            .map_err(|error| {
                anyhow!(
                    "no agent answers at {DEFAULT_URL} ({refused}), and probes of top's own do not \
                 work: {error:#}. Name the agent with --url, or start one: splitlock-agent run"
                )
            })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Remote(remote) => remote.name(),
            Self::Own(_) => "own probes, since top started",
        }
    }

    /// What there is to show.
    ///
    /// # Errors
    /// Why there is no answer, in words fit for a terminal.
    pub fn snapshot(&self) -> Result<Answer, String> {
        match self {
            Self::Remote(remote) => remote.snapshot(),
            Self::Own(own) => own.snapshot(),
        }
    }

    /// One subject in full; `None` where there is no more of it.
    ///
    /// # Errors
    /// As above.
    pub fn detail(&self, key: SubjectId) -> Result<Option<Detail>, String> {
        match self {
            Self::Remote(remote) => remote.detail(key),
            Self::Own(own) => own.detail(key),
        }
    }
}
