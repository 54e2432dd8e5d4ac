//! QEMU: the system's, or one that is unpacked in the target folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::archive::Archive;
use crate::command;

const PROGRAM: &str = "qemu-system-x86_64";
/// Older ones were never tried.
const OLDEST: u32 = 8;
/// The suite of the QEMU that is unpacked, with all its libraries and their loader: it
/// depends on nothing of this machine, and installing it could remove this machine's qemu-utils.
const SUITE: &str = "trixie";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A QEMU that starts.
pub enum Qemu {
    /// The program on PATH.
    System(PathBuf),
    /// The folder where Debian's packages are unpacked.
    Unpacked(PathBuf),
}

impl Qemu {
    /// Finds one, else downloads one (40 MB).
    pub fn get(archive: &Archive, folder: &Path) -> Result<Self> {
        if let Some(program) = command::on_path(PROGRAM) {
            let system = Self::System(program);
            if system.version().is_ok_and(|version| version >= OLDEST) {
                return Ok(system);
            }
            eprintln!("the system's {PROGRAM} is older than {OLDEST}");
        }
        let unpacked = Self::Unpacked(folder.to_owned());
        if !folder.exists() {
            eprintln!("Downloading QEMU; it is unpacked in the target folder, not installed.");
            archive.unpack_with_dependencies(&["qemu-system-x86"], SUITE, folder)?;
        }
        unpacked
            .version()
            .with_context(|| format!("remove {} to have it fetched again", folder.display()))?;
        Ok(unpacked)
    }

    /// A command that starts it.
    pub fn command(&self) -> Command {
        let root = match self {
            Self::System(program) => return Command::new(program),
            Self::Unpacked(root) => root,
        };
        // Its own loader: its libraries may want a newer libc than this machine's.
        let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(root.join(LIBRARIES))
            .arg(root.join("usr/bin").join(PROGRAM))
            // The emulator's core is a module too.
            .env("QEMU_MODULE_DIR", root.join(LIBRARIES).join("qemu"));
        for firmware in ["qemu", "seabios"] {
            command.arg("-L").arg(root.join("usr/share").join(firmware));
        }
        command
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::System(path) | Self::Unpacked(path) => path,
        }
    }

    fn version(&self) -> Result<u32> {
        let mut version = self.command();
        version.arg("--version");
        let text = command::output(&mut version)?;
        parse_version(&text).with_context(|| format!("{version:?} says no version: {text}"))
    }
}

/// The major version in `QEMU emulator version 10.0.13 (Debian …)`.
fn parse_version(text: &str) -> Option<u32> {
    let rest = text.split_once("version ")?.1;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version() {
        let text = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright";
        assert_eq!(parse_version(text), Some(10));
        assert_eq!(parse_version("no such file"), None);
    }
}
