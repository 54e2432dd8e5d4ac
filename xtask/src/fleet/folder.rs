//! Where a fleet keeps its files while it runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};

/// A folder that goes with this value.
pub struct Folder(PathBuf);

/// Its name is this and the process id of its xtask.
const NAME: &str = "fleet-";

impl Folder {
    /// Makes one below this path, and removes what an xtask that was killed has left there.
    pub fn make(below: &Path) -> Result<Self> {
        for left in left_over(below) {
            let _ = fs::remove_dir_all(left);
        }
        let folder = below.join(format!("{NAME}{}", process::id()));
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

fn left_over(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let has_ended = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pid: Option<u32> = name.strip_prefix(NAME).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    entries
        .map(|entry| entry.path())
        .filter(has_ended)
        .collect()
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_value_and_with_the_next_one() {
        let below = std::env::temp_dir().join(format!("xtask-folder-{}", process::id()));
        // Above the greatest process id that Linux gives (PID_MAX_LIMIT, 2^22).
        let left = below.join("fleet-4194305");
        let (other, own) = (
            below.join("fleet"),
            below.join(format!("{NAME}{}", process::id())),
        );
        for folder in [&left, &other] {
            fs::create_dir_all(folder).unwrap();
        }
        let folder = Folder::make(&below).unwrap();
        let file = folder.write("a/b", "c").unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "c");
        assert!(own.exists() && other.exists() && !left.exists());
        drop(folder);
        assert!(!own.exists());
        fs::remove_dir_all(&below).unwrap();
    }
}
