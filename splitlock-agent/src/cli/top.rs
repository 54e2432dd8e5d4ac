//! Flags of `top`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{counting::CountingOptions, remote::RemoteOptions, values};
use crate::top::order::Column;

/// Options of `top`.
#[derive(Clone, Debug, Args)]
pub struct TopOptions {
    /// The agent to watch, such as `https://hv1:9839` or `unix:/run/splitlock-agent.sock`. Without this flag the one at
    /// http://127.0.0.1:9839, or if none answers there and the rights suffice, probes of top's own.
    #[arg(long = "url", value_name = "URL")]
    pub url: Option<String>,

    /// How to ask it.
    #[command(flatten)]
    pub remote: RemoteOptions,

    /// Time from one look to the next, at least 100ms. Where a look takes long, there are fewer: a
    /// tenth of the time at most is spent on them.
    #[arg(
        long = "interval",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = interval
    )]
    pub interval: Duration,

    /// Colours on the screen. Nothing is told by colour alone.
    #[arg(long = "color", value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub color: Color,

    /// Print one plain table and end. It takes two looks, for the rates.
    #[arg(long = "once")]
    pub once: bool,

    /// The same as JSON, for scripts.
    #[arg(long = "json", conflicts_with = "once")]
    pub json: bool,

    /// Column to sort by: numbers from the largest, names from the first.
    #[arg(long = "sort", value_name = "COLUMN", value_enum, default_value_t = Column::LockRate)]
    pub sort: Column,

    /// Sort the other way round.
    #[arg(long = "reverse")]
    pub reverse: bool,

    /// Show only what has all these words in its name, id, unit, container, comm or pid.
    #[arg(long = "filter", value_name = "WORDS", default_value = "")]
    pub filter: String,

    /// Print at most so many VMs, and so many processes.
    #[arg(long = "limit", value_name = "N")]
    pub limit: Option<usize>,

    /// What probes of top's own count.
    #[command(flatten)]
    pub counting: CountingOptions,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Unless `NO_COLOR` is set, or the terminal has none.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = values::duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err("at least 100ms".to_owned());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        for text in ["99ms", "0s", "1", "x"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
