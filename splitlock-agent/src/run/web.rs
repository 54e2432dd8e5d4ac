//! Where the daemon serves, and what to say about it.

use std::{fs, io, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::{
    agent::Request,
    cli::run::WebOptions,
    export::{
        server::{
            Server,
            listeners::{ListenAddress, Listener},
        },
        web_config::{Live, Tls},
    },
};

/// A server that listens.
pub struct Web {
    /// To be served by.
    pub server: Server,
    /// What is to go with it.
    pub files: SocketFiles,
    /// How it is configured. It is read again with the rights that the agent has then.
    pub config: Arc<Live>,
    addresses: Vec<ListenAddress>,
    telemetry_path: String,
}

impl Web {
    /// Opens all sockets; where one cannot be had, none is left. Needs no runtime.
    ///
    /// # Errors
    /// Which address cannot be listened on, and why.
    pub fn open(
        options: &WebOptions,
        config: Live,
        requests: mpsc::Sender<Request>,
    ) -> Result<Self> {
        let mut files = SocketFiles(vec![]);
        let mut listeners = if options.systemd_socket {
            Listener::handed()?
        } else {
            vec![]
        };
        for address in options.addresses() {
            let listener =
                Listener::open(&address).with_context(|| format!("listening on {address}"))?;
            if let ListenAddress::Unix(path) = address {
                files.0.push(path);
            }
            listeners.push(listener);
        }
        let addresses = listeners
            .iter()
            .map(Listener::address)
            .collect::<io::Result<Vec<_>>>()
            .context("the listener's address")?;
        check(&addresses, &config)?;
        let config = Arc::new(config);
        Ok(Self {
            server: Server::new(
                listeners,
                Arc::clone(&config),
                &options.telemetry_path,
                requests,
            )?,
            files,
            config,
            addresses,
            telemetry_path: options.telemetry_path.clone(),
        })
    }

    /// Says where it serves, what others could do there, and what will not be read again with the
    /// rights that there are now. Gives the first of it in one line.
    pub fn tell(&self) -> String {
        let now = self.config.get();
        let (has_tls, asks_who) = (now.tls.is_some(), now.asks_who());
        let scheme = if has_tls { "https" } else { "http" };
        for address in &self.addresses {
            let ListenAddress::Tcp(tcp) = address else {
                continue;
            };
            if tcp.ip().to_canonical().is_loopback() {
                continue;
            }
            if !has_tls {
                warn!(
                    %address,
                    "serving beyond this host without TLS: whoever is on the way reads and alters it; \
                     see --web.config.file"
                );
            }
            if !asks_who {
                warn!(
                    %address,
                    "serving beyond this host without users: whoever reaches it reads it; see \
                     --web.config.file"
                );
            }
        }
        for file in self.config.unreadable() {
            warn!(
                file,
                "the agent's user cannot read a file of the web configuration: a change takes a restart"
            );
        }
        let places: Vec<String> = self
            .addresses
            .iter()
            .map(|address| match address {
                ListenAddress::Tcp(tcp) => format!("{scheme}://{tcp}{}", self.telemetry_path),
                ListenAddress::Unix(path) => format!("unix:{}", path.display()),
            })
            .collect();
        for place in &places {
            info!("serving on {place}");
        }
        format!("serving on {}", places.join(", "))
    }
}

/// What can be said about addresses before they are listened on.
///
/// # Errors
/// What does not go together.
pub fn check(addresses: &[ListenAddress], config: &Live) -> Result<()> {
    let now = config.get();
    let wants_certificate = now.tls.as_ref().is_some_and(Tls::requires_certificate);
    for address in addresses {
        ensure!(
            !wants_certificate || matches!(address, ListenAddress::Tcp(_)),
            "{address}: the web configuration asks for client certificates (client_auth_type), which a \
             Unix socket has none of"
        );
    }
    Ok(())
}

/// Files of sockets, which go with this value where this user still may.
pub struct SocketFiles(Vec<PathBuf>);

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for file in &self.0 {
            if let Err(error) = fs::remove_file(file) {
                // The next agent finds that nobody listens there.
                debug!(file = %file.display(), %error, "a socket's file stays");
            }
        }
    }
}
