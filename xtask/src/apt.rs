//! Debian's and Ubuntu's package manager: what it knows, installing, downloading.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// An apt on this machine.
pub struct Apt {
    /// Whether this user may install packages.
    root: bool,
    /// The package lists are fetched at most once per run.
    updated: Cell<bool>,
}

impl Apt {
    /// The apt of this machine, if it has one.
    pub fn find() -> Option<Self> {
        command::on_path("apt-get")?;
        Some(Self {
            root: command::is_root(),
            updated: Cell::new(false),
        })
    }

    /// Whether this user may install packages.
    pub fn can_install(&self) -> bool {
        self.root
    }

    /// The version that `apt-get install` would take, if apt's lists have the package.
    pub fn candidate(&self, package: &str) -> Result<Option<String>> {
        let mut policy = Command::new("apt-cache");
        // The output is translated otherwise.
        policy.args(["policy", package]).env("LC_ALL", "C");
        Ok(parse_candidate(&command::output(&mut policy)?))
    }

    /// Fetches the package lists; not twice, and only for root.
    pub fn update(&self) -> Result<bool> {
        if !self.root || self.updated.replace(true) {
            return Ok(false);
        }
        eprintln!("Fetching the package lists.");
        command::run(self.apt_get().arg("update"))?;
        Ok(true)
    }

    /// Whether these packages can be installed as things stand, without removing any other.
    pub fn would_install(&self, packages: &[&str]) -> bool {
        let mut simulation = self.apt_get();
        simulation.args(INSTALL).arg("--simulate").args(packages);
        command::output(&mut simulation).is_ok()
    }

    /// Installs packages without a question and without removing any other.
    pub fn install(&self, packages: &[&str]) -> Result<()> {
        if !self.root {
            bail!(
                "only root can install packages; type: {}",
                install_line(packages)
            );
        }
        let attempt = || {
            command::run(
                self.apt_get()
                    .args(INSTALL)
                    .arg("--assume-yes")
                    .args(packages),
            )
        };
        match attempt() {
            Ok(()) => Ok(()),
            // Lists that are too old name files that the archive no longer has.
            Err(error) if self.update()? => {
                eprintln!("{error:#}; again with new package lists");
                attempt()
            }
            Err(error) => Err(error),
        }
    }

    /// Downloads a package's file into a folder; needs no root if apt's lists know the package.
    pub fn download(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        if self.candidate(package)?.is_none() && !self.update()? {
            bail!(
                "apt knows no package {package} (its lists may be empty: apt-get update, as root)"
            );
        }
        let attempt = || {
            let mut download = self.apt_get();
            // As root apt downloads as user _apt, who may not be able to write here.
            download.args(["-o", "APT::Sandbox::User=root", "download", package]);
            command::run(download.current_dir(folder))
        };
        match attempt() {
            Ok(()) => {}
            Err(error) if self.update()? => {
                eprintln!("{error:#}; again with new package lists");
                attempt()?;
            }
            Err(error) => return Err(error),
        }
        let prefix = format!("{package}_");
        fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|file| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&prefix) && name.ends_with(".deb")
            })
            .with_context(|| {
                format!(
                    "apt-get download left no {prefix}*.deb in {}",
                    folder.display()
                )
            })
    }

    fn apt_get(&self) -> Command {
        let mut apt_get = Command::new("apt-get");
        apt_get
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            // A pseudo-terminal would make dpkg draw where lines are wanted.
            .args(["-o", "Dpkg::Use-Pty=0"])
            // Something else may be installing: wait instead of failing.
            .args(["-o", "DPkg::Lock::Timeout=300"]);
        apt_get
    }
}

/// `--no-remove`: rustc-web conflicts with Debian's rustc and rustup; what a
/// person has installed must not vanish.
const INSTALL: [&str; 3] = ["install", "--no-install-recommends", "--no-remove"];

/// What a person without root's rights types to get these packages.
pub fn install_line(packages: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

/// The candidate in the output of `apt-cache policy PACKAGE`, which is empty for a name that apt never heard.
fn parse_candidate(policy: &str) -> Option<String> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .map(str::trim)
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
}

/// The upstream part of a Debian version: `1.96.0+dfsg1` of `1.96.0+dfsg1-1~deb13u1+b1`.
///
/// Packages that are built from one source on different days differ only after it.
pub fn upstream_version(version: &str) -> &str {
    let version = version
        .split_once(':')
        .map_or(version, |(_epoch, rest)| rest);
    version
        .rsplit_once('-')
        .map_or(version, |(upstream, _revision)| upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_candidate() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  \
                      Version table:\n     1.96.0+dfsg1-1~deb12u2 500\n        \
                      500 http://mirror.example/debian-security bookworm-security/main amd64 Packages\n";
        assert_eq!(
            parse_candidate(policy).as_deref(),
            Some("1.96.0+dfsg1-1~deb12u2")
        );
    }

    #[test]
    fn a_package_without_candidate_or_never_heard_of_has_none() {
        let policy =
            "libstd-rust-dev-bpf:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert_eq!(parse_candidate(policy), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn upstream_versions_drop_epoch_and_revision() {
        assert_eq!(
            upstream_version("1.96.0+dfsg1-1~deb13u1+b1"),
            "1.96.0+dfsg1"
        );
        assert_eq!(upstream_version("1:22.1.8-1~deb12u1"), "22.1.8");
        assert_eq!(upstream_version("2.42"), "2.42");
    }

    #[test]
    fn the_line_to_type_names_all_packages() {
        assert!(install_line(&["a", "b"]).ends_with(" a b"));
    }
}
