//! What the agent needs with many subjects, by the tests' program on real events, which checks beside
//! it that all were counted.

use std::process::Command;

use anyhow::Result;

use super::{
    machine::this_machine,
    program,
    results::{Section, rows},
};
use crate::{
    build::{self, BuildOptions},
    executables::Executables,
    steps::Steps,
    workspace::Workspace,
};

/// One measurement.
pub struct Measure {
    key: &'static str,
    title: &'static str,
    /// What the program is told.
    what: &'static str,
    counts: &'static [u32],
    unit: &'static str,
}

/// Many traps of many subjects.
pub const STORM: Measure = Measure {
    key: "storm",
    title: "A storm of 2 million traps",
    what: "storm",
    counts: &[2_000_000],
    unit: "64 processes raise alignment checks and 8 guests too, as fast as they can, while the agent \
           is scraped every 500 ms; each was counted. The agent is in a session of its own",
};

/// Scrapes with many series.
pub const SCRAPES: Measure = Measure {
    key: "scrapes",
    title: "Scrapes",
    what: "subjects",
    counts: &[460, 4960, 10_000],
    unit: "Processes that trapped once and ended, with two series each; a scrape is a connection, \
           the reading of the ledgers, and the answer",
};

/// Many more subjects than there are places.
pub const BOUNDS: Measure = Measure {
    key: "bounds",
    title: "100,000 offenders through a limit of 1,000",
    what: "offenders",
    counts: &[100_000],
    unit: "Processes that trap once and end; all were counted and none was lost for want of room",
};

impl Measure {
    /// Takes it.
    ///
    /// # Errors
    /// A build or a check fails.
    pub fn take(&self, workspace: &Workspace, steps: &mut Steps, rounds: u32) -> Result<Section> {
        let Self {
            key,
            title,
            what,
            counts,
            unit,
        } = self;
        // The tests start it.
        build::build(workspace, steps, &BuildOptions { release: true })?;
        let tests = steps.run("build the tests", || {
            let mut cargo = workspace.cargo();
            cargo.args(["build", "--release", "--package", "splitlock-agent"]);
            cargo.args(["--test", "real_events"]);
            Executables::build(&mut cargo)?.named("real_events")
        })?;
        let lines = steps.run(&format!("measure {key}"), || {
            let mut lines = vec![];
            for count in *counts {
                lines.extend(program::run(Command::new(&tests).args([
                    "measure",
                    what,
                    &count.to_string(),
                    &rounds.to_string(),
                ]))?);
            }
            Ok(lines)
        })?;
        Ok(Section {
            key: (*key).to_owned(),
            title: (*title).to_owned(),
            command: format!("cargo xtask bench {key} --rounds {rounds}"),
            machine: this_machine(),
            unit: format!("{unit}. {rounds} rounds"),
            rows: rows(&lines, "figure", |_| "")?,
        })
    }
}
