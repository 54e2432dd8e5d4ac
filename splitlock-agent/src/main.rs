//! The command.

use std::process::ExitCode;

use clap::Parser as _;
use splitlock_agent::{
    cli::{Cli, Command, logging::LogFormat},
    run,
};
use tracing::error;

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let Command::Run(options) = command;
    match run::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match options.log.format {
                LogFormat::Text => eprintln!("splitlock-agent: {error:#}"),
                // A reader of JSON lines finds one.
                LogFormat::Json => error!("{error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}
