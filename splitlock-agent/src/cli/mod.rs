//! The command line. Flags are named like those of the Prometheus exporters.

use clap::{Parser, Subcommand};

pub mod counting;
pub mod events;
pub mod logging;
pub mod run;
mod values;

use self::run::RunOptions;

/// Split locks and bus locks per process and per VM, as Prometheus metrics.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: attach to the kernel, count, and serve metrics until SIGINT or SIGTERM.
    Run(RunOptions),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
