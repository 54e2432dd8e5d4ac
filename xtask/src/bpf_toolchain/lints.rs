//! Clippy for the BPF programs, compiled for their own target.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use super::{
    TARGET, install,
    record::{self, Kind, Record},
};
use crate::{apt::Apt, command, workspace::Workspace};

const PACKAGE: &str = "splitlock-ebpf";
/// What aya-build passes too.
const CFG: &str = "--cfg=bpf_target_arch=\"x86_64\"";

/// Makes the clippy of the compiler for BPF ready; the error says why there is none.
pub fn ensure_clippy(record: &Record) -> Result<()> {
    match record.kind {
        Kind::Nightly => {
            let rustup = |args: &[&str]| {
                let mut rustup = Command::new("rustup");
                rustup.args(args);
                rustup
            };
            let mut version = rustup(&["run", "nightly", "cargo", "clippy", "--version"]);
            if command::output(&mut version).is_err() {
                command::run(&mut rustup(&[
                    "component",
                    "add",
                    "clippy",
                    "--toolchain",
                    "nightly",
                ]))?;
            }
        }
        Kind::Distribution => {
            let bin = bin(&record.rustc);
            if bin.join("clippy-driver").is_file() {
                return Ok(());
            }
            let apt = Apt::find();
            let package = apt
                .as_ref()
                .map(|apt| install::clippy_package(apt, &record.rustc_version))
                .transpose()?
                .flatten();
            match (apt, package) {
                (Some(apt), Some(package)) if apt.can_install() => {
                    eprintln!("Installing {package}, the lints of the compiler for BPF.");
                    apt.install(&[package])?;
                }
                (_, Some(package)) => bail!(
                    "no clippy beside {}: install {package}",
                    record.rustc.display()
                ),
                (_, None) => bail!("no clippy beside {}", record.rustc.display()),
            }
        }
    }
    Ok(())
}

/// Runs clippy on the BPF programs; a warning is an error.
pub fn clippy(workspace: &Workspace, record: &Record) -> Result<()> {
    let mut clippy = match record.kind {
        Kind::Nightly => {
            let mut clippy = Command::new("rustup");
            clippy.args(["run", "nightly", "cargo", "clippy", "-Zbuild-std=core"]);
            clippy.current_dir(&workspace.root);
            clippy
        }
        Kind::Distribution => {
            // `cargo clippy` would take the clippy-driver of the toolchain in use, which
            // cannot read the core library of another compiler; so does what it does.
            let mut clippy = workspace.cargo();
            clippy
                .arg("check")
                .env("RUSTC", &record.rustc)
                .env(
                    "RUSTC_WORKSPACE_WRAPPER",
                    bin(&record.rustc).join("clippy-driver"),
                )
                .env("RUSTC_BOOTSTRAP", "aya_ebpf,splitlock_ebpf");
            clippy
        }
    };
    let folder = workspace.bpf_toolchain_dir();
    clippy
        .args(["--package", PACKAGE, "--bins", "--release"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(folder.join("lints"))
        // The agent's build script has already built the macros here, with this compiler.
        .env("CARGO_BUILD_BUILD_DIR", folder.join(record::BUILD_DIR))
        .env("CARGO_ENCODED_RUSTFLAGS", [CFG, "-Dwarnings"].join("\x1f"));
    command::run(&mut clippy)
}

fn bin(rustc: &Path) -> &Path {
    rustc.parent().unwrap_or(Path::new("/"))
}
