//! The command.

use std::process::ExitCode;

use clap::Parser as _;
use splitlock_agent::{
    cli::{Cli, Command},
    run,
};

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let result = match command {
        Command::Run(options) => run::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("splitlock-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
