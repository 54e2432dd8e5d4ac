//! The program: static, so that one runs in every distribution, container and initramfs, and the same
//! bytes wherever it is built.

use std::{env, path::PathBuf};

use anyhow::Result;

use super::Site;
use crate::{executables::Executables, workspace::Workspace};

const AGENT: &str = "splitlock-agent";
/// With a target of its own build scripts and macros are not linked statically.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds it.
pub fn build(workspace: &Workspace, site: &Site) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(&site.root)
        .args(["build", "--locked", "--package", AGENT, "--bin", AGENT])
        .args(["--target", TARGET, "--profile", "ship", "--target-dir"])
        .arg(&site.target)
        .env("RUSTFLAGS", flags(site))
        // It would win over RUSTFLAGS.
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    Executables::build(&mut cargo)?.named(AGENT)
}

/// No folder of this machine is named: panics tell where in the sources they happened.
fn flags(site: &Site) -> String {
    let mut flags = "-C target-feature=+crt-static".to_owned();
    let mut remap = |from: PathBuf, to: &str| {
        flags += &format!(" --remap-path-prefix={}={to}", from.display());
    };
    remap(site.root.clone(), "/splitlock-agent");
    if let Some(home) = cargo_home() {
        remap(home, CARGO_HOME);
    }
    // The last that fits is taken, and the target folder may be in the others.
    remap(site.target.clone(), "/target");
    flags
}

/// What the program says in the place of cargo's folder.
pub const CARGO_HOME: &str = "/cargo";

fn cargo_home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(folder) => Some(folder.into()),
        None => Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")),
    }
}
