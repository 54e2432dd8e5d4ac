//! Where a fleet keeps its files while it runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};

/// A folder that goes with this value.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one below this path.
    pub fn make(below: &Path) -> Result<Self> {
        let folder = below.join(format!("fleet-{}", process::id()));
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file there, with the folders above it.
    pub fn write(&self, file: &str, content: &str) -> Result<PathBuf> {
        let path = self.0.join(file);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)
                .with_context(|| format!("cannot create {}", above.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}
