//! Flags of `run`.

use std::path::PathBuf;

use clap::Args;

use super::{
    counting::CountingOptions, events::EventOptions, logging::LogOptions,
    privileges::PrivilegeOptions, remote::DEFAULT_ADDRESS, values,
};
use crate::export::server::listeners::ListenAddress;

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Only say whether the flags and the web configuration are right, by the exit status too. Nothing
    /// is attached, and nothing is served.
    #[arg(long = "check")]
    pub check: bool,

    /// What it serves.
    #[command(flatten)]
    pub web: WebOptions,

    /// What it counts, and within which limits.
    #[command(flatten)]
    pub counting: CountingOptions,

    /// What rights it keeps.
    #[command(flatten)]
    pub privileges: PrivilegeOptions,

    /// The event log.
    #[command(flatten)]
    pub events: EventOptions,

    /// What it logs.
    #[command(flatten)]
    pub log: LogOptions,
}

/// What is served, and where.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Web")]
pub struct WebOptions {
    /// Address and port to serve on, without an address on all; or `unix:` and the path of a socket. May
    /// be given several times, or with commas between the values. Without it, 127.0.0.1:9839.
    #[arg(
        long = "web.listen-address",
        value_name = "[ADDRESS]:PORT",
        value_delimiter = ',',
        value_parser = values::listen_address
    )]
    pub listen_addresses: Vec<ListenAddress>,

    /// Serve on the sockets that systemd hands over (socket activation), and on no address that is not
    /// named.
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,

    /// TLS, users and headers: a file in the format of the Prometheus exporters' (exporter-toolkit). It
    /// is read again when it has changed.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Path of the metrics.
    #[arg(
        long = "web.telemetry-path",
        value_name = "PATH",
        default_value = "/metrics",
        value_parser = values::telemetry_path
    )]
    pub telemetry_path: String,
}

impl WebOptions {
    /// Where to listen, besides on what is handed over.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        if self.listen_addresses.is_empty() && !self.systemd_socket {
            return vec![ListenAddress::Tcp(DEFAULT_ADDRESS)];
        }
        self.listen_addresses.clone()
    }
}
