//! Flags of `run`.

use std::net::SocketAddr;

use clap::Args;

use super::{
    counting::CountingOptions, events::EventOptions, logging::LogOptions,
    privileges::PrivilegeOptions, values,
};

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
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
    /// Address and port to serve on; without an address, on all.
    #[arg(
        long = "web.listen-address",
        value_name = "[ADDRESS]:PORT",
        default_value = "127.0.0.1:9839",
        value_parser = values::listen_address
    )]
    pub listen_address: SocketAddr,

    /// Path of the metrics.
    #[arg(
        long = "web.telemetry-path",
        value_name = "PATH",
        default_value = "/metrics",
        value_parser = values::telemetry_path
    )]
    pub telemetry_path: String,
}
