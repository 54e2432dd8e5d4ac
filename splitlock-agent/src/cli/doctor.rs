//! Flags of `doctor`.

use clap::Args;

use super::{counting::CountingOptions, remote::RemoteOptions};

/// Options of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorOptions {
    /// Print JSON instead of text; its field `schema` is its version.
    #[arg(long)]
    pub json: bool,

    /// Where the agent of this host serves, if one is to run. Without it, one at
    /// http://127.0.0.1:9839 is asked but not missed.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// How to ask it.
    #[command(flatten)]
    pub remote: RemoteOptions,

    /// What an agent would count, and within which limits.
    #[command(flatten)]
    pub counting: CountingOptions,
}
