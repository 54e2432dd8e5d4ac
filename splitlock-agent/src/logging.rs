//! The agent's own log, and the lines of its BPF programs.

use std::io::IsTerminal as _;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tracing::{level_filters::LevelFilter, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    cli::logging::{LogFormat, LogLevel, LogOptions},
    readiness::readable,
};

/// Starts the log, on standard error.
pub fn start(options: LogOptions) {
    let level = match options.level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // The lines of the agent and, by aya-log, of its BPF programs; libraries have details of their
    // own at the debug level.
    let filter = EnvFilter::new(format!(
        "splitlock_agent={level},splitlock_ebpf={level},{}",
        level.min(LevelFilter::INFO)
    ));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would tell on standard error that this takes nothing, and panic as it does not.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process, as a test may do, keeps the first's form.
    let _ = match options.format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// Begins, in a runtime, to print the debug lines of the BPF programs.
pub type DebugLines = Box<dyn FnOnce() + Send>;

/// Takes over the debug lines of the BPF programs, which are off otherwise.
pub fn debug_lines(ebpf: &mut Ebpf) -> Option<DebugLines> {
    let lines = EbpfLogger::init(ebpf)
        .inspect_err(|error| warn!(%error, "no debug lines from the BPF programs"))
        .ok()?;
    Some(Box::new(move || match readable(lines) {
        Ok(mut logger) => {
            tokio::spawn(async move {
                while let Ok(mut ready) = logger.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            });
        }
        Err(error) => warn!(%error, "no debug lines from the BPF programs"),
    }))
}
