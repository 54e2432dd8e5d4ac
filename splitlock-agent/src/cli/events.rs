//! Flags of the event log.

use clap::{Args, ValueEnum};

use crate::export::event_log::Form;

/// Which events get a line, and where.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Event log")]
pub struct EventOptions {
    /// Where each event that has a detail record gets a line, with who it was, where, and what is
    /// there.
    #[arg(
        long = "events",
        value_name = "WHERE",
        value_enum,
        default_value_t = Events::Off
    )]
    pub events: Events,

    /// Lines in one second, for the whole host; events past it have none and are counted as lost. Of
    /// cgroups that had none in the second there may be a quarter more.
    #[arg(
        long = "limit.events-per-second",
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub per_second: u32,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Events {
    /// Nowhere.
    Off,
    /// To standard output, one JSON object a line.
    Json,
    /// To systemd's journal, with a field `SPLITLOCK_…` for each value.
    Journald,
}

impl Events {
    /// The form of the lines; `None` where there are none.
    pub const fn form(self) -> Option<Form> {
        match self {
            Self::Off => None,
            Self::Json => Some(Form::Json),
            Self::Journald => Some(Form::Journald),
        }
    }
}
