//! Everything that a person types in this repository: `cargo xtask VERB`.
//!
//! One module per verb; what they share is below them: [`bpf_toolchain`] (what
//! compiles BPF), [`tools`] (programs that tests talk to), [`apt`], [`command`],
//! [`steps`] and [`workspace`].

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod bpf_toolchain;
mod build;
mod ci;
mod command;
mod dashboards;
mod dist;
mod executables;
mod fleet;
mod fuzz;
mod run;
mod setup;
mod steps;
mod test;
mod tools;
mod vm;
mod workspace;

use crate::{steps::Steps, workspace::Workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find what compiles BPF, install or build what is missing
    Setup,
    /// Set up and build the agent
    Build(build::BuildOptions),
    /// Set up, build and start the agent: `cargo xtask run -- ARGUMENTS OF splitlock-agent run`
    Run(run::RunOptions),
    /// Set up and run all tests: `cargo xtask test -- FILTER`
    Test(test::TestOptions),
    /// Run the agent and its tests on several kernels under emulation
    Vm(vm::VmOptions),
    /// Measure what the agent costs, beside others
    Bench(bench::BenchOptions),
    /// Show a fleet: real traps, Prometheus, Alertmanager and the notification that names the guest
    Fleet(fleet::FleetOptions),
    /// Run the fuzz targets with libFuzzer, which looks where its input leads
    Fuzz(fuzz::FuzzOptions),
    /// Write the Grafana dashboards from their source
    Dashboards(dashboards::DashboardsOptions),
    /// Build what is released: the static program, the Debian package, the container image, Kubernetes
    /// manifests, the list of what is in them, and checksums
    Dist(dist::DistOptions),
    /// Everything that must be green: format, lints, tests (none may skip), documentation, and the
    /// tests on the oldest and the newest kernel, and the way from a trap to its notification
    Ci,
}

fn main() -> ExitCode {
    let Cli { verb } = Cli::parse();
    match execute(verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}` and not the debug form: a backtrace of xtask helps nobody.
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(verb: Verb) -> Result<()> {
    let workspace = Workspace::locate()?;
    let mut steps = Steps::default();
    match verb {
        Verb::Setup => setup::setup(&workspace, &mut steps).map(|_| ()),
        Verb::Build(options) => build::build(&workspace, &mut steps, &options).map(|_| ()),
        Verb::Run(options) => run::run(&workspace, &mut steps, options),
        Verb::Test(options) => test::test(&workspace, &mut steps, options),
        Verb::Vm(options) => vm::vm(&workspace, &mut steps, options),
        Verb::Bench(options) => bench::bench(&workspace, &mut steps, &options),
        Verb::Fleet(options) => fleet::fleet(&workspace, &mut steps, &options),
        Verb::Fuzz(options) => fuzz::fuzz(&workspace, &mut steps, &options),
        Verb::Dashboards(options) => dashboards::dashboards(&workspace, &options),
        Verb::Dist(options) => dist::dist(&workspace, &mut steps, &options),
        Verb::Ci => ci::ci(&workspace, &mut steps),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_of_the_agent_and_of_the_tests_pass_through() {
        let parse = |line: &[&str]| Cli::try_parse_from(line).is_ok();
        assert!(parse(&[
            "xtask",
            "run",
            "--release",
            "--",
            "--log.level",
            "debug"
        ]));
        assert!(parse(&["xtask", "test", "--", "--exact", "a_test"]));
        assert!(!parse(&["xtask", "run", "--log.level", "debug"]));
    }
}
