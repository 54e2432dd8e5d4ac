//! The record of what compiles BPF: written by `cargo xtask setup`, obeyed by the
//! agent's build script, which includes this very file.

use std::{
    fmt::{self, Display, Formatter},
    path::PathBuf,
    str::FromStr,
};

use anyhow::{Context as _, Error, Result, bail};

/// The folder of the record, below the folder that cargo builds in.
pub const FOLDER: &str = "bpf-toolchain";
/// The name of the record in that folder.
pub const FILE: &str = "toolchain.env";
/// The name of the folder there for intermediate files of the BPF programs.
pub const BUILD_DIR: &str = "build";

/// Which kind of compiler it is; they are invoked in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// rustup's nightly with the component rust-src: builds `core` for the BPF target itself.
    Nightly,
    /// A rustc that ships a compiled `core` for the BPF target, as some distributions' do.
    Distribution,
}

/// What compiles and links BPF on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How to invoke the compiler.
    pub kind: Kind,
    /// The compiler itself, never rustup's proxy.
    pub rustc: PathBuf,
    /// The compiler's version, like `1.96.0`.
    pub rustc_version: String,
    /// The version of the LLVM in the compiler, like `22.1.8`.
    pub llvm_version: String,
    /// The folder of the bpf-linker that fits this LLVM.
    pub linker_dir: PathBuf,
    /// The version of that bpf-linker.
    pub linker_version: String,
}

/// As lines of `key=value`.
impl Display for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            rustc,
            rustc_version,
            llvm_version,
            linker_dir,
            linker_version,
        } = self;
        writeln!(
            f,
            "# Written by `cargo xtask setup`, read by splitlock-agent/build.rs."
        )?;
        writeln!(f, "kind={kind}")?;
        writeln!(f, "rustc={}", rustc.display())?;
        writeln!(f, "rustc-version={rustc_version}")?;
        writeln!(f, "llvm-version={llvm_version}")?;
        writeln!(f, "linker-dir={}", linker_dir.display())?;
        writeln!(f, "linker-version={linker_version}")
    }
}

impl FromStr for Record {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.to_owned())
                .with_context(|| format!("{FILE} has no {key}"))
        };
        Ok(Self {
            kind: value("kind")?.parse()?,
            rustc: value("rustc")?.into(),
            rustc_version: value("rustc-version")?,
            llvm_version: value("llvm-version")?,
            linker_dir: value("linker-dir")?.into(),
            linker_version: value("linker-version")?,
        })
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nightly => "nightly",
            Self::Distribution => "distribution",
        })
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(kind: &str) -> Result<Self> {
        match kind {
            "nightly" => Ok(Self::Nightly),
            "distribution" => Ok(Self::Distribution),
            _ => bail!("{FILE}: unknown kind {kind:?}"),
        }
    }
}
