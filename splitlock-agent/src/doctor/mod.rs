//! `doctor`: would this host notice a split lock, and if not, why?
//!
//! `gather` finds out the `facts`, `findings` judges them, `verdict` answers, `text` and
//! [`Report`] show it.

pub mod facts;
pub mod findings;
mod gather;
mod text;
pub mod verdict;

#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::cli::doctor::DoctorOptions;
use facts::Facts;
use findings::Finding;
use verdict::Verdict;

/// Version of the serialised form; it rises when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// All that `doctor` says; its serialised form is what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub schema: u32,
    /// The answer.
    pub verdict: Verdict,
    /// What is short, the worst first.
    pub findings: Vec<Finding>,
    /// What was found.
    pub facts: Facts,
}

impl Report {
    /// Judges.
    pub fn of(facts: Facts) -> Self {
        let findings = findings::find(&facts);
        Self {
            schema: SCHEMA,
            verdict: verdict::judge(&facts, &findings),
            findings,
            facts,
        }
    }
}

/// Examines the host and prints what it found; the exit status is the verdict.
///
/// # Errors
/// This process lacks what it needs for anything at all.
pub fn run(options: &DoctorOptions) -> Result<ExitCode> {
    let facts = gather::gather(options).context("starting a runtime")?;
    let report = Report::of(facts);
    let text = if options.json {
        serde_json::to_string_pretty(&report).context("writing the report")? + "\n"
    } else {
        text::render(&report, is_coloured())
    };
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        // Who reads only the first line closes the pipe then; the verdict holds all the same.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("standard output");
        }
        _ => {}
    }
    Ok(ExitCode::from(report.verdict.exit_status))
}

/// On a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
fn is_coloured() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
