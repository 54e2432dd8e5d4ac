//! HTTP over a Unix socket, as a transport of ureq's.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use ureq::{
    Agent, Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
    },
};

/// What a request says that it asks for: a socket has no host.
const BASE: &str = "http://localhost";

/// Connects to a socket's file.
#[derive(Debug)]
pub struct UnixConnector(PathBuf);

impl UnixConnector {
    /// A client of one socket, and what to put paths behind.
    pub fn agent(config: Config, path: PathBuf) -> (Agent, String) {
        let agent = Agent::with_parts(config, Self(path), NoName);
        (agent, BASE.to_owned())
    }
}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let stream = UnixStream::connect(&self.0)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers }))
    }
}

/// Nothing is looked up.
#[derive(Debug)]
struct NoName;

impl Resolver for NoName {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        // ureq wants one, and the connector has no use for it.
        addresses.push(([127, 0, 0, 1], 0).into());
        Ok(addresses)
    }
}

/// A connection.
#[derive(Debug)]
pub struct UnixTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let left = timeout.not_zero().map(|time| *time);
        self.stream.set_write_timeout(left)?;
        let output = &self.buffers.output()[..amount];
        let written = self.stream.write_all(output);
        written.map_err(|error| in_time(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let left = timeout.not_zero().map(|time| *time);
        self.stream.set_read_timeout(left)?;
        let read = self.stream.read(self.buffers.input_append_buf());
        let amount = read.map_err(|error| in_time(error, timeout))?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Connections are not used again.
        false
    }
}

/// The kernel says `WouldBlock` where a socket's own limit of time has passed.
fn in_time(error: std::io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}
