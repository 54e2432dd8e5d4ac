//! The same object wherever it is compiled: its debug information and its BTF name no folder of this
//! machine.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Relative to this crate, where cargo starts build scripts.
const WORKSPACE: &str = "..";

/// Writes what cargo starts in the place of rustc. aya-build has flags of its own and lets through none
/// of `RUSTFLAGS`.
pub fn wrapper(out_dir: &Path) -> Result<PathBuf> {
    let workspace = fs::canonicalize(WORKSPACE).context("the workspace's folder")?;
    let mut script = format!(
        "#!/bin/sh\nexec \"$@\" --remap-path-prefix={}=/splitlock-agent",
        quoted(&workspace)
    );
    if let Some(cargo_home) = cargo_home() {
        script += &format!(" --remap-path-prefix={}=/cargo", quoted(&cargo_home));
    }
    script.push('\n');
    let file = out_dir.join("rustc-without-paths");
    fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))?;
    Ok(file)
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(folder) => Some(folder.into()),
        None => Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")),
    }
}

/// As one word for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
