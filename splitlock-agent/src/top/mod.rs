//! `top`: a live view in the terminal of an agent that runs, or of probes of its own.
//!
//! `source` brings answers, `picture` makes of two of them what changed, `app` and `keys` know what is
//! looked at, `screen` draws it. All of these but the source are pure; `looks` and `terminal` join
//! them to the world.

use anyhow::Result;

use self::source::Source;
use crate::cli::top::TopOptions;

mod answer;
mod app;
mod columns;
mod detail;
mod events;
mod figures;
#[cfg(test)]
mod fixture;
mod header;
mod help;
mod history;
mod keys;
mod looks;
mod once;
pub mod order;
mod own;
mod picture;
mod remote;
mod screen;
mod source;
mod terminal;
mod theme;

/// Shows, or prints once, what the command line asks for.
///
/// # Errors
/// There is no agent, and no rights for probes of its own; or no terminal.
pub fn run(options: &TopOptions) -> Result<()> {
    // First of all, as long as there is one thread.
    let source = Source::find(options)?;
    if options.once || options.json {
        return once::print(options, &source);
    }
    terminal::show(options, source)
}
