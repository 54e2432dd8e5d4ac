//! What runs inside: the agent, the test program and the init, linked statically, one
//! build for all kernels.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;

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
    let messages = messages(&mut cargo)?;
    let program = |name: &str| executable(&messages, name, &cargo);
    Ok(Programs {
        agent: program("splitlock-agent")?,
        tests: program("real_events")?,
        init: program("rig-init")?,
    })
}

/// Builds the benchmark of the hot path, which runs here too.
pub fn build_benchmark(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = cargo(workspace);
    cargo.args(["--package", "splitlock-agent", "--bench", "hot_path"]);
    let messages = messages(&mut cargo)?;
    executable(&messages, "hot_path", &cargo)
}

fn cargo(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .arg("build")
        // With a target of its own build scripts and macros are not linked statically.
        .args(["--target", TARGET, "--profile", PROFILE])
        .arg("--message-format=json-render-diagnostics")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // It would win over RUSTFLAGS.
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    for setting in PROFILE_SETTINGS {
        cargo.args(["--config", setting]);
    }
    cargo
}

fn executable(messages: &str, name: &str, cargo: &Command) -> Result<PathBuf> {
    messages
        .lines()
        .find_map(|message| parse_executable(message, name))
        .with_context(|| format!("{cargo:?} named no program {name}"))
}

fn messages(cargo: &mut Command) -> Result<String> {
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {cargo:?}"))?;
    if !output.status.success() {
        bail!("{cargo:?} failed: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program that one of cargo's messages is about, if it is about this one.
fn parse_executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    (message["target"]["name"] == name).then_some(())?;
    message["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_programs_apart() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"real_events"},
            "executable":"/t/rig/deps/real_events-0123"}"#;
        assert_eq!(
            parse_executable(message, "real_events"),
            Some("/t/rig/deps/real_events-0123".into())
        );
        assert_eq!(parse_executable(message, "rig-init"), None);
    }
}
