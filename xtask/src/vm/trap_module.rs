//! The trap module, compiled for one kernel.
//!
//! It is compiled in a root folder of unpacked packages: the kernels' build tools come as
//! programs for the suite of their kernel, whose libc this machine may not have, and the
//! headers name each other by absolute paths.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{archive::Archive, kernels::Kernel};
use crate::command;

/// The suite of the compiler: gcc 14 compiles modules for 5.10 to 7.3, and its libc runs the
/// build tools of all these kernels.
const SUITE: &str = "trixie";
const COMPILER: [&str; 12] = [
    "gcc",
    "make",
    "dash",
    "bash",
    "coreutils",
    "findutils",
    "diffutils",
    "sed",
    "grep",
    "mawk",
    "perl-base",
    "libelf1t64",
];
const MODULE: &str = "splitlock_trap";

/// `make` in the root folder. The mounts are those of the shell's own mount namespace and
/// vanish with it. objtool wants /proc.
const SCRIPT: &str = r#"
set -eu
root=$1 headers=$2 sources=$3 release=$4
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$headers/usr/src" "$root/usr/src"
for kbuild in "$headers"/usr/lib/linux-kbuild-*; do
    mkdir -p "$root/usr/lib/${kbuild##*/}"
    mount --bind "$kbuild" "$root/usr/lib/${kbuild##*/}"
done
mount --bind "$sources" "$root/mnt"
exec chroot "$root" /usr/bin/make -C "/usr/src/linux-headers-$release" M=/mnt CC=gcc \
    CONFIG_DEBUG_INFO_BTF_MODULES= modules
"#;

/// Compiles it if its sources differ from those of an earlier result. For a kernel without
/// headers there is none, and the tests that need it skip.
pub fn build(
    archive: &Archive,
    kernel: &Kernel,
    sources: &Path,
    folder: &Path,
) -> Result<Option<PathBuf>> {
    let headers = match headers(archive, kernel, &folder.join("headers")) {
        Ok(headers) => headers,
        Err(error) => {
            eprintln!(
                "{}: no trap module, as there are no headers: {error:#}",
                kernel.release
            );
            return Ok(None);
        }
    };
    let compiler = compiler(archive, &folder.join("compiler"))?;
    let work = folder.join("modules").join(&kernel.release);
    let module = work.join(format!("{MODULE}.ko"));
    if !copy_changed(sources, &work)? && module.exists() {
        return Ok(Some(module));
    }
    let mut make = Command::new("unshare");
    if !command::is_root() {
        make.arg("--map-root-user");
    }
    make.args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .args([&compiler, &headers, &work])
        .arg(&kernel.release)
        // chroot is not on a user's PATH everywhere.
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C");
    command::output(&mut make)
        .with_context(|| format!("compiling the trap module for {}", kernel.release))?;
    if !module.exists() {
        bail!("{make:?} left no {}", module.display());
    }
    Ok(Some(module))
}

fn compiler(archive: &Archive, root: &Path) -> Result<PathBuf> {
    if !root.exists() {
        eprintln!(
            "Downloading a compiler for the trap module (70 MB); it is unpacked, not installed."
        );
        archive.unpack_with_dependencies(&COMPILER, SUITE, root)?;
    }
    for folder in ["dev", "proc", "mnt", "usr/src"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let awk = root.join("usr/bin/awk");
    if !awk.is_symlink() {
        // Installing the package would make this link.
        symlink("mawk", &awk).with_context(|| format!("cannot create {}", awk.display()))?;
    }
    Ok(root.to_owned())
}

fn headers(archive: &Archive, kernel: &Kernel, folder: &Path) -> Result<PathBuf> {
    let package = archive.package(&format!("linux-headers-{}", kernel.release))?;
    let unpacked = folder.join(format!("{}_{}", kernel.release, package.version));
    if !unpacked.exists() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        eprintln!("{}: downloading its headers", kernel.release);
        let mut packages = vec![package.name];
        packages.extend(package.depends.into_iter().filter(|name| {
            name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-")
        }));
        archive.unpack(&packages, &unpacked)?;
    }
    Ok(unpacked)
}

/// Copies the sources that differ, and tells whether there were any.
fn copy_changed(from: &Path, to: &Path) -> Result<bool> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut changed = false;
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let source = entry.context("a folder's entry")?.path();
        let Some(name) = source.file_name() else {
            continue;
        };
        let content =
            fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let copy = to.join(name);
        if fs::read(&copy).is_ok_and(|old| old == content) {
            continue;
        }
        fs::write(&copy, content).with_context(|| format!("cannot write {}", copy.display()))?;
        changed = true;
    }
    if changed {
        // A failed attempt must not leave an older module behind.
        let _ = fs::remove_file(to.join(format!("{MODULE}.ko")));
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_copied_when_they_differ() {
        let folder = std::env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("Kbuild"), "obj-m").unwrap();
        assert!(copy_changed(&from, &to).unwrap());
        assert!(!copy_changed(&from, &to).unwrap());
        fs::write(from.join("Kbuild"), "obj-y").unwrap();
        fs::write(to.join("splitlock_trap.ko"), "old").unwrap();
        assert!(copy_changed(&from, &to).unwrap());
        assert!(!to.join("splitlock_trap.ko").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
