//! QEMU: the system's, or one that is unpacked in the target folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::archive::Archive;
use crate::command;

const PROGRAM: &str = "qemu-system-x86_64";
/// Older ones were never tried.
const OLDEST: u32 = 8;
/// The suite of the QEMU that is unpacked, with all its libraries and their loader: it
/// depends on nothing of this machine, and installing it could remove this machine's qemu-utils.
pub const SUITE: &str = "trixie";
/// Where Debian has libraries.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// QEMU's usual firmware, SeaBIOS.
const FIRMWARE: &str = "bios-256k.bin";
/// The loader of programs that are not linked statically, by the psABI of x86-64.
pub const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

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
        let mut command = self.loader();
        command
            .arg(self.program())
            // The emulator's core is a module too.
            .env("QEMU_MODULE_DIR", root.join(LIBRARIES).join("qemu"));
        for firmware in ["qemu", "seabios"] {
            command.arg("-L").arg(root.join("usr/share").join(firmware));
        }
        command
    }

    /// What a machine needs to start it without options for devices.
    pub fn files(&self) -> Result<Files> {
        let firmware = ["usr/share/seabios", "usr/share/qemu"]
            .map(|folder| self.root().join(folder).join(FIRMWARE))
            .into_iter()
            .find(|file| file.exists())
            .with_context(|| format!("no {FIRMWARE} in {}", self.root().display()))?;
        Ok(Files {
            firmware,
            program: self.program(),
            loader: self.root().join(LOADER.trim_start_matches('/')),
            libraries: self.libraries_of(&self.program())?,
        })
    }

    /// Names that a program knows its libraries by, and where they are; its own, or those of another
    /// program that is unpacked with it.
    pub fn libraries_of(&self, program: &Path) -> Result<Vec<(String, PathBuf)>> {
        let mut list = self.loader();
        let text = command::output(list.arg("--list").arg(program))?;
        let libraries = parse_libraries(&text);
        if libraries.is_empty() {
            bail!("{list:?} named no library: {text}");
        }
        Ok(libraries)
    }

    /// The loader, which starts a program or lists its libraries.
    fn loader(&self) -> Command {
        let root = self.root();
        let mut command = Command::new(root.join(LOADER.trim_start_matches('/')));
        if let Self::Unpacked(root) = self {
            command.arg("--library-path").arg(root.join(LIBRARIES));
        }
        command
    }

    fn root(&self) -> &Path {
        match self {
            Self::System(_) => Path::new("/"),
            Self::Unpacked(root) => root,
        }
    }

    fn program(&self) -> PathBuf {
        match self {
            Self::System(program) => program.clone(),
            Self::Unpacked(root) => root.join("usr/bin").join(PROGRAM),
        }
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

/// The files of a QEMU.
pub struct Files {
    /// The program.
    pub program: PathBuf,
    /// SeaBIOS.
    pub firmware: PathBuf,
    /// What is to be at [`LOADER`].
    pub loader: PathBuf,
    /// Names that the program knows its libraries by, and where they are.
    pub libraries: Vec<(String, PathBuf)>,
}

/// Lines like `libfdt.so.1 => /usr/lib/x86_64-linux-gnu/libfdt.so.1 (0x00007f0000000000)`; the loader
/// itself and the vDSO have no arrow or no name of a file before it.
fn parse_libraries(text: &str) -> Vec<(String, PathBuf)> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once(" => ")?;
            let (path, _address) = rest.rsplit_once(" (")?;
            (!name.contains('/')).then(|| (name.to_owned(), path.into()))
        })
        .collect()
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
    fn reads_the_libraries() {
        let text = "\tlinux-vdso.so.1 (0x00007f1969feb000)\n\
            \tlibfdt.so.1 => /a/libfdt.so.1 (0x00007f1967a00000)\n\
            \tlibm.so.6 => /b c/libm.so.6 (0x00007f1967b00000)\n\
            \t/lib64/ld-linux-x86-64.so.2 => /a/ld.so (0x00007f1969fed000)\n";
        assert_eq!(
            parse_libraries(text),
            [
                ("libfdt.so.1".to_owned(), "/a/libfdt.so.1".into()),
                ("libm.so.6".to_owned(), "/b c/libm.so.6".into()),
            ]
        );
    }

    #[test]
    fn reads_the_version() {
        let text = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright";
        assert_eq!(parse_version(text), Some(10));
        assert_eq!(parse_version("no such file"), None);
    }
}
