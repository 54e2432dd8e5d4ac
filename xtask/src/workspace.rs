//! Where this repository is and where cargo builds it.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{bpf_toolchain::record, command};

/// The workspace, as cargo sees it.
pub struct Workspace {
    /// The cargo that started xtask.
    cargo: OsString,
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// The folder above every build script's `OUT_DIR`. By default the target
    /// folder; `build.build-dir` in cargo's configuration may part the two.
    pub build_dir: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub fn locate() -> Result<Self> {
        // Cargo sets CARGO for what it runs.
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut metadata = Command::new(&cargo);
        metadata
            .args(["metadata", "--no-deps", "--format-version=1"])
            .arg("--manifest-path");
        metadata.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let json = command::output(&mut metadata)?;
        let json: Value = serde_json::from_str(&json).with_context(|| format!("{metadata:?}"))?;
        let folder = |key: &str| json[key].as_str().map(PathBuf::from);
        Ok(Self {
            cargo,
            root: folder("workspace_root")
                .with_context(|| format!("{metadata:?}: no workspace_root"))?,
            build_dir: folder("build_directory")
                .or_else(|| folder("target_directory"))
                .with_context(|| format!("{metadata:?}: no target_directory"))?,
        })
    }

    /// A cargo command in the workspace's root.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root);
        command
    }

    /// The folder of what compiles BPF; the agent's build script looks for it.
    pub fn bpf_toolchain_dir(&self) -> PathBuf {
        self.build_dir.join(record::FOLDER)
    }

    /// The folder of programs that tests talk to.
    pub fn tools_dir(&self) -> PathBuf {
        self.build_dir.join("tools")
    }
}

/// Writes a file only if its content changes, so that cargo, which looks at the
/// time of modification, rebuilds nothing for nothing.
pub fn write_if_changed(file: &Path, content: &str) -> Result<()> {
    match fs::read(file) {
        Ok(old) if old == content.as_bytes() => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}
