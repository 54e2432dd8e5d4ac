//! The command.

use std::process::ExitCode;

use splitlock_agent::{
    cli::{self, Cli, Command, documents, logging::LogFormat},
    run,
};
use tracing::error;

fn main() -> ExitCode {
    let Cli { command } = cli::parse();
    let result = match &command {
        Command::Run(options) => run::run(options),
        Command::Completions(options) => documents::completions(options),
        Command::Man(options) => documents::man(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match command.log_format() {
                LogFormat::Text => eprintln!("splitlock-agent: {error:#}"),
                // A reader of JSON lines finds one.
                LogFormat::Json => error!("{error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}
