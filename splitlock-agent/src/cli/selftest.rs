//! Flags of `selftest`.

use clap::{Args, ValueEnum};

use super::{counting::CountingOptions, remote::RemoteOptions};

/// Options of `selftest`.
#[derive(Clone, Debug, Args)]
pub struct SelftestOptions {
    /// The agent that is to count, on this host, such as `http://127.0.0.1:9839`, which is looked at
    /// by default. Where this is not given and none answers there, an agent is started for the test.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// How to ask it.
    #[command(flatten)]
    pub remote: RemoteOptions,

    /// Start an agent for the test, whatever runs, with the flags below.
    #[arg(long)]
    pub own: bool,

    /// Make split locks also where the kernel holds up or signals whoever does.
    #[arg(long = "split-lock")]
    pub split_lock: bool,

    /// Say what would be made, and make none of it.
    #[arg(long = "dry-run")]
    pub dry_run: bool,

    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,

    /// Of an agent that is started for the test.
    #[command(flatten)]
    pub counting: CountingOptions,
}

/// What the child is told.
#[derive(Clone, Debug, Args)]
pub struct EventOptions {
    /// What to make.
    #[arg(value_enum)]
    pub event: EventName,

    /// How many.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,

    /// Whose child it is: it ends with that thread.
    pub parent: u32,
}

/// What a child makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventName {
    /// Loads from an odd address with EFLAGS.AC set.
    AlignmentCheck,
    /// LOCKed additions across the border of two cache lines.
    SplitLock,
    /// The loads in a guest.
    Guest,
}

impl EventName {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlignmentCheck => "alignment-check",
            Self::SplitLock => "split-lock",
            Self::Guest => "guest",
        }
    }

    /// The comm of the process that makes it.
    pub const fn comm(self) -> &'static core::ffi::CStr {
        match self {
            Self::AlignmentCheck => c"selftest-ac",
            Self::SplitLock => c"selftest-lock",
            Self::Guest => c"selftest-guest",
        }
    }
}
