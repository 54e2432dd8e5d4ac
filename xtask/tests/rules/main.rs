//! The rules, alerts, runbooks and configurations of `dashboards/`: read as text against the metrics
//! contract, and run by the real promtool, amtool and Alertmanager.

mod alertmanager;
mod alerts;
mod contract;
mod files;
mod labels;
mod programs;
mod prometheus;
mod queries;
mod runbooks;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use programs::Program;

/// A test and the programs that it runs.
struct Test {
    name: &'static str,
    needs: &'static [Program],
    run: fn(),
}

fn main() -> ExitCode {
    let tests = [
        queries::TESTS,
        alerts::TESTS,
        runbooks::TESTS,
        prometheus::TESTS,
        alertmanager::TESTS,
    ];
    let trials = tests.into_iter().flatten().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test whose programs are missing is shown as ignored, with the reason, or fails where no test may
/// skip.
fn trial(test: &'static Test) -> Trial {
    let Test { name, needs, run } = test;
    let missing: Vec<&str> = needs
        .iter()
        .filter(|program| program.path().is_none())
        .map(|program| program.variable())
        .collect();
    if missing.is_empty() {
        return Trial::test(*name, move || {
            run();
            Ok(())
        });
    }
    let missing = format!("needs {}: cargo xtask test brings them", missing.join(", "));
    if programs::must_run() {
        return Trial::test(*name, move || Err(missing.into()));
    }
    eprintln!("{name} skips: {missing}");
    Trial::test(*name, || Ok(())).with_ignored_flag(true)
}
