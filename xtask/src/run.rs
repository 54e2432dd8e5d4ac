//! `cargo xtask run`: the agent, from nothing to serving.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{BuildOptions, build},
    command,
    steps::Steps,
    workspace::Workspace,
};

#[derive(clap::Args)]
pub struct RunOptions {
    #[command(flatten)]
    build: BuildOptions,
    /// Arguments of `splitlock-agent run`
    #[arg(last = true, value_name = "AGENT ARGUMENTS")]
    args: Vec<String>,
}

/// Becomes the agent, so that signals go straight to it; returns only if that fails.
pub fn run(workspace: &Workspace, steps: &mut Steps, options: RunOptions) -> Result<()> {
    let RunOptions {
        build: options,
        args,
    } = options;
    let agent = build(workspace, steps, &options)?;
    let mut agent_run = if command::is_root() {
        Command::new(&agent)
    } else if let Some(sudo) = command::on_path("sudo") {
        // Only the agent needs root's rights; sudo passes signals on.
        let mut with_sudo = Command::new(sudo);
        with_sudo.arg("--").arg(&agent);
        with_sudo
    } else {
        bail!(
            "the agent loads BPF programs and needs root's rights, and there is no sudo here; as root, type:\n    {} run {}",
            agent.display(),
            args.join(" ")
        );
    };
    agent_run.arg("run").args(args);
    eprintln!("\n==> {agent_run:?}");
    Err(agent_run.exec()).with_context(|| format!("cannot start {agent_run:?}"))
}
