//! What the agent was built from, for `splitlock_build_info`.

use std::{env, path::Path, process::Command};

/// Moves with every commit, checkout and reset.
const GIT_LOG: &str = "../.git/logs/HEAD";

/// Sets the variables that the agent reads at compile time.
pub fn emit() {
    if Path::new(GIT_LOG).exists() {
        println!("cargo:rerun-if-changed={GIT_LOG}");
    }
    let revision = first_line(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=SPLITLOCK_REVISION={revision}");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = first_line(Command::new(rustc).arg("--version"));
    // "rustc 1.95.0 (59807616e 2026-04-14)"
    let number = version.split(' ').nth(1).unwrap_or("unknown");
    println!("cargo:rustc-env=SPLITLOCK_RUST_VERSION={number}");
}

fn first_line(command: &mut Command) -> String {
    command
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| Some(text.lines().next()?.to_owned()))
        .unwrap_or_else(|| "unknown".to_owned())
}
