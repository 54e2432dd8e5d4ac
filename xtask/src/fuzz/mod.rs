//! `cargo xtask fuzz`: the agent's fuzz targets under libFuzzer, which looks where its input leads.
//!
//! `cargo test` runs the same targets for a second each: with the kept corpus, and with random input.

use std::{
    collections::VecDeque,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

mod engine;
mod keep;
mod targets;

use self::{
    engine::{Engine, Run},
    targets::Target,
};
use crate::{setup, steps::Steps, workspace::Workspace};

#[derive(clap::Args)]
pub struct FuzzOptions {
    /// For each target
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Targets at a time
    #[arg(long, default_value_t = 2, value_name = "N")]
    jobs: usize,
    /// Add to the kept corpus what reaches code that it does not
    #[arg(long)]
    keep: bool,
    /// Names of targets, without `fuzz_`; all if there are none
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Runs targets, and ends with a table.
pub fn fuzz(workspace: &Workspace, steps: &mut Steps, options: &FuzzOptions) -> Result<()> {
    let FuzzOptions {
        seconds,
        jobs,
        keep,
        targets: wanted,
    } = options;
    let targets = choose(targets::find(workspace)?, wanted)?;
    setup::setup(workspace, steps)?;
    let engine = steps.run("fuzz targets", || Engine::build(workspace))?;
    let runs = steps.run("fuzzing", || {
        run_all(&engine, &targets, *seconds, (*jobs).max(1))
    })?;
    if *keep {
        steps.run("corpus", || {
            targets
                .iter()
                .try_for_each(|target| keep::keep(&engine, target))
        })?;
    }
    print!("{}", table(&runs));
    let failed: Vec<&str> = runs
        .iter()
        .filter(|run| run.failure.is_some())
        .map(|run| run.target.as_str())
        .collect();
    ensure!(
        failed.is_empty(),
        "{}: what failed is in {}",
        failed.join(", "),
        engine.folder().display()
    );
    Ok(())
}

fn choose(all: Vec<Target>, wanted: &[String]) -> Result<Vec<Target>> {
    if wanted.is_empty() {
        return Ok(all);
    }
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !all.iter().any(|target| target.name == **name))
    {
        let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        bail!("no target {unknown}; there are {}", names.join(", "));
    }
    Ok(all
        .into_iter()
        .filter(|target| wanted.contains(&target.name))
        .collect())
}

fn run_all(engine: &Engine, targets: &[Target], seconds: u32, jobs: usize) -> Result<Vec<Run>> {
    let waiting: Mutex<VecDeque<&Target>> = Mutex::new(targets.iter().collect());
    let runs = Mutex::new(vec![]);
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let run = engine.run(target, seconds);
                    if let Ok(run) = &run {
                        eprint!("{run}");
                    }
                    let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
                    runs.push(run);
                }
            });
        }
    });
    let runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut runs = runs.into_iter().collect::<Result<Vec<Run>>>()?;
    runs.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(runs)
}

fn table(runs: &[Run]) -> String {
    let head = format!(
        "{:<18} {:>8} {:>12} {:>9} {:>7}  failure\n",
        "target", "seconds", "executions", "coverage", "inputs"
    );
    runs.iter().fold(head, |text, run| format!("{text}{run}"))
}

/// The folder, made where it is not there.
fn ensure_folder(folder: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
