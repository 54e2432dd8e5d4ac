//! Getting a compiler for BPF where there is none.

use std::process::Command;

use anyhow::{Result, bail};

use super::{
    compiler::{self, MINIMUM, Unusable},
    rustc::major_minor,
};
use crate::{
    apt::{Apt, install_line, upstream_version},
    command,
};

/// Debian's packages of rustc that come with `core` for the BPF target. `rustc-web`
/// is in bookworm's security updates and in trixie, `rustc` with `-bpf` in
/// trixie's backports and later. The shared LLVM comes as a dependency.
const FAMILIES: [Family; 2] = [
    Family {
        rustc: "rustc-web",
        core: "libstd-rust-web-dev-bpf",
        clippy: "rust-web-clippy",
    },
    Family {
        rustc: "rustc",
        core: "libstd-rust-dev-bpf",
        clippy: "rust-clippy",
    },
];

struct Family {
    rustc: &'static str,
    core: &'static str,
    clippy: &'static str,
}

/// Gets a nightly with rust-src; rustup itself must stay as it is.
const NIGHTLY: &[&str] = &[
    "toolchain",
    "install",
    "nightly",
    "--profile=minimal",
    "--component=rust-src",
    "--no-self-update",
];
/// Completes a nightly that is there, without another change of it.
const RUST_SRC: &[&str] = &["component", "add", "rust-src", "--toolchain=nightly"];

/// Installs a compiler, or says in one message what is missing and what to type.
pub fn install(unusable: Unusable) -> Result<()> {
    eprintln!("No compiler for BPF here yet:\n{unusable}");
    let Unusable(mut reasons) = unusable;
    let apt = Apt::find();
    let mut choices = Vec::new();
    match &apt {
        None => reasons.push("apt: not here".to_owned()),
        Some(apt) => match offer(apt)? {
            Ok(packages) if apt.can_install() => return from_apt(apt, packages),
            Ok(packages) => choices.push(install_line(&packages)),
            Err(why) => reasons.extend(why),
        },
    }
    let rustup = match compiler::nightly_sysroot() {
        Some(_) => RUST_SRC,
        None => NIGHTLY,
    };
    if command::on_path("rustup").is_some() {
        eprintln!(
            "Installing rust-src for rustup's nightly, to compile the core library for BPF from.\n\
             The toolchain that you use stays as it is."
        );
        match command::run(Command::new("rustup").args(rustup)) {
            Ok(()) => return Ok(()),
            Err(error) => reasons.push(format!("{error:#}")),
        }
    }
    choices.push(format!("rustup {}", rustup.join(" ")));
    bail!(
        "nothing here compiles BPF, and nothing that would could be installed:\n{}\n\
         Type one of these, then `cargo xtask setup` again:\n    {}",
        Unusable(reasons),
        choices.join("\n    ")
    )
}

fn from_apt(apt: &Apt, packages: [&str; 2]) -> Result<()> {
    let [rustc, core] = packages;
    eprintln!(
        "Installing {rustc}, a Rust compiler, and {core}, its core library for BPF.\n\
         They stand beside your Rust toolchain, which stays as it is."
    );
    apt.install(&packages)
}

/// The package of clippy for a compiler of this version, if apt has one.
pub fn clippy_package(apt: &Apt, rustc_version: &str) -> Result<Option<&'static str>> {
    for Family { clippy, .. } in FAMILIES {
        // Clippy is a compiler itself and reads only what its own version wrote.
        let fits = apt
            .candidate(clippy)?
            .is_some_and(|version| version.starts_with(rustc_version));
        if fits && apt.would_install(&[clippy]) {
            return Ok(Some(clippy));
        }
    }
    Ok(None)
}

/// The packages that would do, or why apt has none.
fn offer(apt: &Apt) -> Result<Result<[&'static str; 2], Vec<String>>> {
    let offer = known(apt)?;
    // Lists that were never fetched, as in a container, know nothing.
    if offer.is_err() && apt.update()? {
        return known(apt);
    }
    Ok(offer)
}

fn known(apt: &Apt) -> Result<Result<[&'static str; 2], Vec<String>>> {
    let mut reasons = Vec::new();
    for Family { rustc, core, .. } in FAMILIES {
        let (Some(rustc_version), Some(core_version)) =
            (apt.candidate(rustc)?, apt.candidate(core)?)
        else {
            reasons.push(format!(
                "apt: knows no {rustc} with {core} (unless its lists are old: apt-get update)"
            ));
            continue;
        };
        if !fit(&rustc_version, &core_version)? {
            reasons.push(format!(
                "apt: {rustc} {rustc_version} and {core} {core_version} are not of one version, or older than {MINIMUM}"
            ));
        } else if !apt.would_install(&[rustc, core]) {
            reasons.push(format!(
                "apt: {rustc} and {core} conflict with installed packages (see: apt-get install --simulate {rustc} {core})"
            ));
        } else {
            return Ok(Ok([rustc, core]));
        }
    }
    Ok(Err(reasons))
}

/// Whether compiler and core library are of one build, and new enough. No
/// dependency ties the two packages, and with backports their candidates can differ.
fn fit(rustc: &str, core: &str) -> Result<bool> {
    let rustc = upstream_version(rustc);
    Ok(rustc == upstream_version(core) && major_minor(rustc)? >= major_minor(MINIMUM)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_of_one_source_fits() {
        assert!(fit("1.96.0+dfsg1-1~deb13u1+b1", "1.96.0+dfsg1-1~deb13u1").unwrap());
    }

    #[test]
    fn another_version_or_an_old_one_does_not_fit() {
        // trixie with backports: the compiler's candidate is stable's, the library's is not.
        assert!(!fit("1.85.1+dfsg1-1+deb13u1", "1.96.1+dfsg1-2~bpo13+1").unwrap());
        assert!(!fit("1.85.0+dfsg3-1", "1.85.0+dfsg3-1").unwrap());
    }
}
