//! What is released: its version, and the commit that says when.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::command;

/// A release.
#[derive(Debug, Clone)]
pub struct Release {
    /// As `0.1.0`.
    pub version: String,
    /// The commit.
    pub revision: String,
    /// When that was made, in seconds since 1970: the only time that is in what is built.
    pub time: u64,
}

impl Release {
    /// That of a checkout.
    pub fn of(root: &Path) -> Result<Self> {
        let asked = git(root, &["log", "-1", "--format=%H %ct"])?;
        let (revision, time) = asked
            .trim()
            .split_once(' ')
            .context("git log said no commit and no time")?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision.to_owned(),
            time: time.parse().context("git log said no time")?,
        })
    }

    /// Its time as RFC 3339 has it.
    pub fn date(&self) -> Result<String> {
        self.formatted("+%Y-%m-%dT%H:%M:%SZ")
    }

    /// Its time as Debian's changelogs have it.
    pub fn debian_date(&self) -> Result<String> {
        self.formatted("+%a, %d %b %Y %H:%M:%S +0000")
    }

    fn formatted(&self, format: &str) -> Result<String> {
        let mut date = Command::new("date");
        date.args(["--utc", &format!("--date=@{}", self.time), format])
            .env("LC_ALL", "C");
        Ok(command::output(&mut date)?.trim().to_owned())
    }
}

/// Files that differ from the commit, which so is not what is built.
pub fn changed(root: &Path) -> Result<Vec<String>> {
    let status = git(root, &["status", "--porcelain", "--untracked-files=no"])?;
    Ok(status.lines().map(str::to_owned).collect())
}

fn git(root: &Path, args: &[&str]) -> Result<String> {
    command::output(Command::new("git").arg("-C").arg(root).args(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_their_readers_want_them() {
        let release = Release {
            version: "1.2.3".to_owned(),
            revision: "0".repeat(40),
            time: 1_700_000_000,
        };
        assert_eq!(release.date().unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!(
            release.debian_date().unwrap(),
            "Tue, 14 Nov 2023 22:13:20 +0000"
        );
    }
}
