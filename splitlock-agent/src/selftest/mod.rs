//! `selftest`: real events, made by a child process, and whether an agent counted them.
//!
//! `plan` says what is made on this host, `events` makes it in a `child`, `counter` is the
//! agent, `verdict` compares both sides, `report` tells.

mod child;
mod counter;
pub mod events;
mod plan;
mod reading;
mod report;
mod verdict;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    child::Child,
    counter::Counter,
    events::kvm_guest,
    plan::Step,
    reading::Reading,
    report::Report,
    verdict::{Evidence, Line, Verdict, taken_away},
};
use crate::{
    cli::selftest::{EventName, SelftestOptions},
    subjects::{SubjectId, process::start_ticks},
};

/// Runs the test. Its exit status is 0 if all that this host traps was counted, 1 if not.
///
/// # Errors
/// Why it could not run.
pub fn run(options: &SelftestOptions) -> Result<ExitCode> {
    let paths = options.counting.paths.paths();
    if let Err(reason) = paths.check() {
        bail!("{reason}");
    }
    let counter = Counter::find(options)?;
    let first = counter.read()?;
    let own = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("uname")?;
    ensure!(
        own.trim() == first.host.kernel,
        "{} is on another host: its kernel is {}, and this one's {}",
        counter.name(),
        first.host.kernel,
        own.trim()
    );
    let steps = plan::steps(&first.host, options.split_lock, kvm_guest::available());
    if !options.json {
        say(&report::announcement(&counter, &first.host, &steps))?;
        if options.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut lines = vec![];
    for step in &steps {
        match &step.left_out {
            Some(reason) => lines.push(Line::left_out(step.title(), reason.clone())),
            None if options.dry_run => lines.push(Line::planned(step.title(), step.count.into())),
            None => lines.extend(try_step(step, &counter, options)?),
        }
    }
    lines.push(taken_away(&first));
    let name = counter.name();
    let report = Report::new(&name, &first.host, &lines);
    let text = if options.json {
        serde_json::to_string_pretty(&report).context("the report")? + "\n"
    } else {
        report.table()
    };
    say(&text)?;
    Ok(if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn try_step(step: &Step, counter: &Counter, options: &SelftestOptions) -> Result<Vec<Line>> {
    let before = counter.read()?;
    let mut child = Child::start(step.event, step.count)?;
    let paths = options.counting.paths.paths();
    let who = SubjectId {
        pid: child.pid(),
        start_ticks: start_ticks(&paths, child.pid()).context("the child's start time")?,
    };
    let results = child.run().with_context(|| step.title())?;
    let made = u64::from(step.count);
    let judge = |after: &Reading| -> Vec<Line> {
        let evidence = Evidence {
            who,
            results: &results,
            before: &before,
            after,
        };
        match step.event {
            EventName::AlignmentCheck => vec![evidence.alignment_checks(made)],
            EventName::SplitLock => vec![evidence.split_locks(made)],
            EventName::Guest => evidence.guest(made).into(),
        }
    };
    // The child lives until then: the agent finds out who it is.
    let after = counter.read_until(|reading| {
        judge(reading)
            .iter()
            .all(|line| line.verdict != Verdict::Failed)
    })?;
    Ok(judge(&after))
}

/// A reader that has read enough is no error.
fn say(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(()),
    }
}
