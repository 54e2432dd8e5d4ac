//! `cargo xtask test`: all tests, those on real kernel events included.

use std::{env, process::Command};

use anyhow::Result;

use crate::{command, setup, steps::Steps, tools::Tools, workspace::Workspace};

#[derive(clap::Args)]
pub struct TestOptions {
    /// Start the test programs with sudo: those on real kernel events need root's rights
    #[arg(long)]
    sudo: bool,
    /// Names of tests, and flags of the test programs
    #[arg(last = true, value_name = "FILTER")]
    args: Vec<String>,
}

/// What a test that needs root, a device or a program does where it is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Skipping {
    /// It says why it skips, and passes.
    Allowed,
    /// It fails.
    Refused,
}

impl Skipping {
    /// Refused in CI, which sets `CI=true` on all the usual services.
    fn from_env() -> Self {
        match env::var("CI").as_deref() {
            Ok("true") => Self::Refused,
            _ => Self::Allowed,
        }
    }
}

/// Sets up and runs the tests.
pub fn test(workspace: &Workspace, steps: &mut Steps, options: TestOptions) -> Result<()> {
    let TestOptions { sudo, args } = options;
    setup::setup(workspace, steps)?;
    let skipping = Skipping::from_env();
    let tools = steps.run("programs for tests", || {
        Tools::find(workspace, skipping)?.with_browser(skipping)
    })?;
    steps.run("tests", || {
        if !command::is_root() && !sudo {
            eprintln!(
                "Tests on real kernel events need root's rights: they will skip, and say so.\n\
                 To run them all, type: cargo xtask test --sudo"
            );
        }
        let mut tests = cargo_test(workspace, &tools, skipping, sudo);
        command::run(tests.arg("--").args(args))
    })
}

/// `cargo test` for everything but the BPF programs, which have their own target.
pub fn cargo_test(workspace: &Workspace, tools: &Tools, skipping: Skipping, sudo: bool) -> Command {
    let mut tests = workspace.cargo();
    tests.args(["test", "--workspace", "--exclude", "splitlock-ebpf"]);
    tools.announce_to(&mut tests);
    if skipping == Skipping::Refused {
        tests.env("SPLITLOCK_TESTS_MUST_RUN", "1");
    }
    if sudo {
        // Cargo starts test programs, and only them, this way. They read their
        // environment, which sudo would clear.
        let runner = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
        tests.env(runner, "sudo --preserve-env");
    }
    tests
}
