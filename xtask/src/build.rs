//! `cargo xtask build`: the agent, with the BPF programs inside.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{setup, steps::Steps, workspace::Workspace};

const AGENT: &str = "splitlock-agent";

#[derive(clap::Args)]
pub struct BuildOptions {
    /// Build with optimisations
    #[arg(long)]
    pub release: bool,
}

/// Builds the agent and returns the path of the program.
pub fn build(workspace: &Workspace, steps: &mut Steps, options: &BuildOptions) -> Result<PathBuf> {
    setup::setup(workspace, steps)?;
    steps.run("build the agent", || {
        let agent = cargo_build(workspace, options)?;
        eprintln!("{}", agent.display());
        Ok(agent)
    })
}

fn cargo_build(workspace: &Workspace, options: &BuildOptions) -> Result<PathBuf> {
    let BuildOptions { release } = options;
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--package", AGENT, "--bin", AGENT])
        // Where the program ends up depends on profile, target and configuration: cargo tells.
        .arg("--message-format=json-render-diagnostics")
        .args(release.then_some("--release"));
    executable(&mut cargo)
}

fn executable(cargo: &mut Command) -> Result<PathBuf> {
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {cargo:?}"))?;
    if !output.status.success() {
        bail!("{cargo:?} failed: {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(parse_executable)
        .next_back()
        .with_context(|| format!("{cargo:?} named no program"))
}

/// The program that one of cargo's messages is about, if it is about one.
fn parse_executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    (message["target"]["name"] == AGENT).then_some(())?;
    message["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_program_from_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"splitlock-agent"},
            "executable":"/t/debug/splitlock-agent","fresh":true}"#;
        assert_eq!(
            parse_executable(message),
            Some("/t/debug/splitlock-agent".into())
        );
    }

    #[test]
    fn other_messages_name_none() {
        for message in [
            r#"{"reason":"compiler-artifact","target":{"name":"splitlock_agent"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/debug/other"}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "text of a build script",
        ] {
            assert_eq!(parse_executable(message), None, "{message}");
        }
    }
}
