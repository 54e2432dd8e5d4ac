//! The command.

use std::process::ExitCode;

use splitlock_agent::{
    cli::{self, Cli, Command, documents, logging::LogFormat},
    code::child,
    doctor,
    keeper::process,
    run,
    selftest::{self, events},
    top,
};
use tracing::error;

fn main() -> ExitCode {
    let Cli { command } = cli::parse();
    let done = |()| ExitCode::SUCCESS;
    let result = match &command {
        Command::Run(options) => run::run(options),
        Command::Top(options) => top::run(options).map(done),
        Command::Doctor(options) => doctor::run(options),
        Command::Selftest(options) => selftest::run(options),
        Command::SelftestEvent(options) => events::serve(options).map(done),
        Command::Completions(options) => documents::completions(options).map(done),
        Command::Man(options) => documents::man(options).map(done),
        Command::Keeper(options) => Ok(process::run(options)),
        Command::Symbolize(options) => Ok(child::run(options.paths())),
    };
    result.unwrap_or_else(|error| {
        match command.log_format() {
            LogFormat::Text => eprintln!("splitlock-agent: {error:#}"),
            // A reader of JSON lines finds one.
            LogFormat::Json => error!("{error:#}"),
        }
        ExitCode::from(command.failure())
    })
}
