//! A folder of files to be packed, and packing that depends on nothing but what is in it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::release::Release;
use crate::command;

/// Files for a package or an image.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one.
    pub fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)
                .with_context(|| format!("cannot remove {}", root.display()))?;
        }
        folder(&root)?;
        Ok(Self { root })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Adds a file that everyone may read.
    pub fn text(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.add(path, content.as_ref(), 0o644)
    }

    /// Adds a program.
    pub fn program(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.add(path, content.as_ref(), 0o755)
    }

    /// Adds a file, packed; `.gz` is added to its name.
    pub fn packed(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.text(path, content)?;
        gzip(&self.root.join(path))
    }

    fn add(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let file = self.root.join(path);
        // Their modes do not depend on the umask.
        let mut above = self.root.clone();
        for part in Path::new(path).parent().into_iter().flatten() {
            above.push(part);
            folder(&above)?;
        }
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        set_mode(&file, mode)
    }

    /// Packs all of it as a tar archive: in the order of names, root's, as old as the release.
    pub fn tar(&self, release: &Release, file: &Path) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--format=ustar", "--sort=name"])
            .args(["--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{}", release.time))
            .env("LC_ALL", "C")
            .arg("--file")
            .arg(file)
            .arg("--directory")
            .arg(&self.root);
        let mut names: Vec<_> = fs::read_dir(&self.root)
            .with_context(|| format!("cannot list {}", self.root.display()))?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<_>>()?;
        if names.is_empty() {
            bail!("{} is empty", self.root.display());
        }
        names.sort();
        command::run(tar.args(names))
    }
}

/// Packs a file; `.gz` is added to its name.
pub fn gzip(file: &Path) -> Result<()> {
    // Without name and time.
    command::run(Command::new("gzip").args(["-9", "-n", "-f"]).arg(file))
}

/// Reads a file.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    set_mode(path, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
