//! An agent that runs, behind a URL: how `top`, `doctor` and `selftest` ask it.

mod address;
mod secrets;
mod unix;

use std::{io, io::Read as _, time::Duration};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ureq::{Agent, config::Config};

use self::{address::Address, unix::UnixConnector};
use crate::{cli::remote::RemoteOptions, subjects::names::printable};

/// The most that is read of an answer, in bytes. A snapshot of 10,000 subjects has 10 MB.
const LARGEST: u64 = 256 << 20;

/// For a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// An agent that is asked.
pub struct Remote {
    agent: Agent,
    /// What it is called, without a slash at the end.
    name: String,
    /// What paths are put behind.
    base: String,
    /// For `Authorization`.
    authorization: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// Nobody listens there.
    Absent(String),
    /// Something else.
    Other(String),
}

impl Failure {
    /// In words that are fit for a terminal.
    pub fn text(self) -> String {
        match self {
            Self::Absent(text) | Self::Other(text) => text,
        }
    }
}

impl Remote {
    /// The agent at `url`, which is not asked yet, and which may take `patience` for a whole answer.
    ///
    /// # Errors
    /// What is wrong with the URL, or with a file of the options.
    pub fn new(url: &str, options: &RemoteOptions, patience: Duration) -> Result<Self> {
        let address = Address::of(url)?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Who asks for this address means it.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // The agent closes connections that rest; a new one costs it little.
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_global(Some(patience));
        if let Address::Https(_) = &address {
            config = config.tls_config(secrets::tls(options)?);
        }
        let authorization = secrets::credentials(options)?
            .map(|credentials| format!("Basic {}", STANDARD.encode(credentials)));
        let config: Config = config.build();
        let name = address.to_string();
        let (agent, base) = match address {
            Address::Http(base) | Address::Https(base) => (config.new_agent(), base),
            Address::Unix(path) => UnixConnector::agent(config, path),
        };
        Ok(Self {
            agent,
            name,
            base,
            authorization,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Status and body of a path.
    ///
    /// # Errors
    /// Why there is no answer. Messages may quote the other side, and are made fit for a terminal.
    pub fn get(&self, path: &str) -> Result<(u16, Vec<u8>), Failure> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let say = |error: &dyn std::fmt::Display| {
            let text = printable(error.to_string().as_bytes());
            format!("{}{path}: {text}", self.name)
        };
        let response = request.call().map_err(|error| match error {
            ureq::Error::Io(error) if is_absence(&error) => Failure::Absent(say(&error)),
            ureq::Error::Io(error) => Failure::Other(say(&error)),
            ureq::Error::ConnectionFailed => Failure::Absent(say(&error)),
            other => Failure::Other(say(&other)),
        })?;
        let status = response.status().as_u16();
        let mut body = vec![];
        response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader()
            .take(LARGEST + 1)
            .read_to_end(&mut body)
            .map_err(|error| Failure::Other(say(&error)))?;
        if body.len() as u64 > LARGEST {
            let text = format!("the answer has more than {} MiB", LARGEST >> 20);
            return Err(Failure::Other(say(&text)));
        }
        Ok((status, body))
    }
}

/// What to say where the agent does not let this client in.
pub const UNAUTHORIZED: &str = "HTTP 401; the agent has users: name a file with one and its password by --url.credentials-file";

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    )
}
