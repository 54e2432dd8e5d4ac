//! The process that keeps the rights to look into other processes, and starts those that do.
//!
//! Its only words are "start one that …, which speaks with this socket" and "end it". It forks and never
//! executes, so that neither it nor its children need to be allowed to.

pub mod conversation;
pub mod process;
mod resolver;
mod words;
pub mod worker;

use clap::Args;

pub use self::{
    words::Kind,
    worker::{Keeper, Process},
};
use crate::cli::counting::PathOptions;

/// Options of `keeper`, which the agent gives.
#[derive(Clone, Debug, Args)]
pub struct KeeperOptions {
    /// The user that it becomes.
    #[arg(long)]
    pub uid: u32,
    /// Its group.
    #[arg(long)]
    pub gid: u32,
    /// Where the host is.
    #[command(flatten)]
    pub paths: PathOptions,
}
