//! The command line. Flags are named like those of the Prometheus exporters.

use std::{env, ffi::OsString};

use clap::{CommandFactory as _, Error, FromArgMatches as _, Parser, Subcommand};

pub mod counting;
pub mod doctor;
pub mod documents;
mod environment;
pub mod events;
pub mod logging;
mod manual;
pub mod privileges;
pub mod remote;
pub mod run;
pub mod selftest;
pub mod top;
mod values;
mod version;

use self::{
    counting::PathOptions,
    doctor::DoctorOptions,
    documents::{CompletionsOptions, ManOptions},
    logging::LogFormat,
    run::RunOptions,
    selftest::{EventOptions, SelftestOptions},
    top::TopOptions,
};
use crate::keeper::KeeperOptions;

/// Split locks and bus locks per process and per VM, as Prometheus metrics.
#[derive(Debug, Parser)]
#[command(name = "splitlock-agent", version, long_version = version::LONG, about)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: attach to the kernel, count, and serve metrics until SIGINT or SIGTERM.
    Run(Box<RunOptions>),
    /// Watch VMs and processes live: rates, outcomes, delays, exits, and where each of them traps.
    ///
    /// What is shown is of the agent that runs, or where none does, of probes that are attached for the
    /// time. The key ? tells all keys.
    Top(Box<TopOptions>),
    /// Tell whether this host would notice a split lock, and what to do about it.
    ///
    /// Reads what the host says of itself, attaches the agent's hooks for a moment, lets go again, and
    /// asks an agent that runs here already. It changes nothing. Without root's rights it says what it
    /// could not find out. With flags of run it judges an agent with these flags.
    Doctor(Box<DoctorOptions>),
    /// Make real events, and check that the agent counts them: one that runs, else one that is started
    /// for it.
    ///
    /// A child process makes a bounded number of alignment checks, of split locks, and of a KVM guest's
    /// alignment checks. It says beforehand what it will do. Split locks are made only where the kernel
    /// lets them pass without a delay or a signal, unless --split-lock is given.
    Selftest(Box<SelftestOptions>),
    /// The child of selftest.
    #[command(hide = true)]
    SelftestEvent(EventOptions),
    /// Print completions for a shell.
    Completions(CompletionsOptions),
    /// Print a man page, or write all of them.
    Man(ManOptions),
    /// Say what is at addresses of processes; the agent's own helper, which speaks JSON lines.
    #[command(hide = true)]
    Symbolize(PathOptions),
    /// Look into other processes for the agent; its own helper.
    #[command(hide = true)]
    Keeper(KeeperOptions),
}

impl Command {
    /// How an error is told.
    pub fn log_format(&self) -> LogFormat {
        match self {
            Self::Run(options) => options.log.format,
            _ => LogFormat::Text,
        }
    }

    /// The exit status of an error.
    pub fn failure(&self) -> u8 {
        match self {
            // 1 is a fault that they found.
            Self::Selftest(_) | Self::Doctor(_) => 2,
            _ => 1,
        }
    }
}

/// Reads the command line and the environment. Where they are not understood, or ask for help, this
/// says so and ends the process: with status 2, or 0.
pub fn parse() -> Cli {
    let words: Vec<OsString> = env::args_os().collect();
    read(&words).unwrap_or_else(|error| error.exit())
}

fn read(words: &[OsString]) -> Result<Cli, Error> {
    let mut command = command();
    let matches = command
        .try_get_matches_from_mut(words)
        .map_err(|error| environment::name_culprit(error, words))?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// All that there is to say on the command line.
fn command() -> clap::Command {
    manual::add_to_help(environment::attach(Cli::command()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    /// Words of a command line, apart by a NUL.
    #[test]
    fn fuzz_arguments() {
        bolero::check!(name = "arguments").for_each(|line: &[u8]| {
            let line = String::from_utf8_lossy(line);
            // A name would be looked up in the network.
            if line.contains("listen") {
                return;
            }
            let words: Vec<OsString> = std::iter::once("splitlock-agent")
                .chain(line.split('\0'))
                .map(OsString::from)
                .collect();
            match read(&words) {
                Ok(Cli { command }) => {
                    let _ = (command.log_format(), command.failure());
                }
                // Its text is made only when it is shown.
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        });
    }
}
