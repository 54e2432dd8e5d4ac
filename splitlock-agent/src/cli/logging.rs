//! Flags of the log.

use clap::{Args, ValueEnum};

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct LogOptions {
    /// Least severe log lines to print; `debug` also turns on the lines of the BPF programs.
    #[arg(
        long = "log.level",
        value_name = "LEVEL",
        value_enum,
        default_value_t = LogLevel::Info
    )]
    pub level: LogLevel,

    /// Form of the log lines, on standard error.
    #[arg(
        long = "log.format",
        value_name = "FORMAT",
        value_enum,
        default_value_t = LogFormat::Text
    )]
    pub format: LogFormat,
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Also what is only of use when something is wrong with the agent.
    Debug,
    /// Also what the agent does.
    Info,
    /// What does not work as it should.
    Warn,
    /// What ends the agent.
    Error,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
