//! What runs inside: the agent, the test program and the init, linked statically, one
//! build for all kernels.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{executables::Executables, workspace::Workspace};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A profile of its own: optimised a little, as emulation is slow, with the checks of
/// debug builds, and without what would make the initramfs large.
const PROFILE: &str = "rig";
const PROFILE_SETTINGS: [&str; 4] = [
    r#"profile.rig.inherits="dev""#,
    "profile.rig.opt-level=1",
    "profile.rig.debug=0",
    r#"profile.rig.strip="debuginfo""#,
];

/// The programs' paths.
pub struct Programs {
    /// `splitlock-agent`.
    pub agent: PathBuf,
    /// The tests on real events.
    pub tests: PathBuf,
    /// Process 1.
    pub init: PathBuf,
}

/// Builds them.
pub fn build(workspace: &Workspace) -> Result<Programs> {
    let mut cargo = cargo(workspace);
    cargo
        .args(["--package", "splitlock-agent", "--package", "xtask"])
        .args(["--bin", "splitlock-agent", "--bin", "rig-init"])
        .args(["--test", "real_events"]);
    let built = Executables::build(&mut cargo)?;
    Ok(Programs {
        agent: built.named("splitlock-agent")?,
        tests: built.named("real_events")?,
        init: built.named("rig-init")?,
    })
}

/// Builds the benchmark of the hot path, which runs here too.
pub fn build_benchmark(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = cargo(workspace);
    cargo.args(["--package", "splitlock-agent", "--bench", "hot_path"]);
    Executables::build(&mut cargo)?.named("hot_path")
}

fn cargo(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .arg("build")
        // With a target of its own build scripts and macros are not linked statically.
        .args(["--target", TARGET, "--profile", PROFILE])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // It would win over RUSTFLAGS.
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    for setting in PROFILE_SETTINGS {
        cargo.args(["--config", setting]);
    }
    cargo
}
