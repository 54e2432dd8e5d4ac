//! `cargo xtask build`: the agent, with the BPF programs inside.

use std::path::PathBuf;

use anyhow::Result;

use crate::{executables::Executables, setup, steps::Steps, workspace::Workspace};

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
        let BuildOptions { release } = options;
        let mut cargo = workspace.cargo();
        cargo
            .args(["build", "--package", AGENT, "--bin", AGENT])
            .args(release.then_some("--release"));
        let agent = Executables::build(&mut cargo)?.named(AGENT)?;
        eprintln!("{}", agent.display());
        Ok(agent)
    })
}
