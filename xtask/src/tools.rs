//! Programs that tests talk to: a real Prometheus and its promtool.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{apt::Apt, command, test::Skipping, workspace::Workspace};

/// Both programs of the package `prometheus`.
pub struct Prometheus {
    /// The server.
    pub prometheus: PathBuf,
    /// The checker of expositions and rules.
    pub promtool: PathBuf,
}

impl Prometheus {
    /// From PATH, else from an earlier download, else from Debian's package. That is
    /// unpacked and not installed: no service starts, and nobody needs root's rights.
    pub fn find(workspace: &Workspace, skipping: Skipping) -> Result<Option<Self>> {
        if let (Some(prometheus), Some(promtool)) =
            (command::on_path("prometheus"), command::on_path("promtool"))
        {
            return Ok(Some(
                Self {
                    prometheus,
                    promtool,
                }
                .announce(),
            ));
        }
        let unpacked = workspace.tools_dir().join("prometheus");
        if !unpacked.exists()
            && let Err(error) = unpack("prometheus", &workspace.tools_dir(), &unpacked)
        {
            let error = error.context(
                "tests need prometheus and promtool: neither on PATH nor to be downloaded",
            );
            return match skipping {
                Skipping::Refused => Err(error),
                Skipping::Allowed => {
                    eprintln!("{error:#}\nTests that need them will skip, and say so.");
                    Ok(None)
                }
            };
        }
        let bin = unpacked.join("usr/bin");
        let found = Self {
            prometheus: bin.join("prometheus"),
            promtool: bin.join("promtool"),
        };
        Ok(Some(found.announce()))
    }

    fn announce(self) -> Self {
        let Self {
            prometheus,
            promtool,
        } = &self;
        eprintln!("{}\n{}", prometheus.display(), promtool.display());
        self
    }
}

/// Downloads a Debian package and unpacks it into a folder, which appears only when it is complete.
fn unpack(package: &str, tools: &Path, folder: &Path) -> Result<()> {
    let apt = Apt::find().context("there is no apt-get here")?;
    eprintln!(
        "Downloading {package}'s package for the tests; it is unpacked in the target folder, not installed."
    );
    let download = tools.join("download");
    let file = apt.download(package, &download)?;
    let partial = tools.join(format!("{package}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    command::run(Command::new("dpkg").arg("-x").arg(&file).arg(&partial))?;
    fs::rename(&partial, folder)
        .with_context(|| format!("cannot move {} to {}", partial.display(), folder.display()))?;
    // The packed form is of no further use; if it stays, nothing breaks.
    let _ = fs::remove_dir_all(&download);
    Ok(())
}
