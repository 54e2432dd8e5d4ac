//! What others say of what was made: lintian of the package, buildah of the image, the schemas of the
//! manifests and of the SBOM, and the program itself of what is in it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Made, program::CARGO_HOME, tree};
use crate::{command, vm::Archive, workspace::Workspace};

/// Of Debian's release whose policy counts.
const SUITE: &str = "trixie";
/// What every Debian has, so that no package depends on it.
const ESSENTIAL: [&str; 11] = [
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "libc-bin",
    "sed",
    "tar",
];
/// What validates, and the versions that were read.
const VALIDATORS: [&str; 3] = [
    "kubernetes-validate==1.37.0",
    "cloudcoil-models-prometheus-operator==0.80.1.0",
    "cyclonedx-python-lib[json-validation]==11.0.0",
];
/// The first that knows `recursiveReadOnly` and `appArmorProfile`, and the newest that the validator knows.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// All of it.
pub fn all(workspace: &Workspace, archive: &Archive, downloads: &Path, made: &Made) -> Result<()> {
    sbom_names_what_is_linked(made)?;
    lintian(archive, &downloads.join("lintian"), &made.deb)?;
    buildah(archive, &downloads.join("buildah"), &made.image)?;
    schemas(workspace, made)
}

/// The program tells where in which crate a panic comes from. What it names so has to be in the SBOM.
fn sbom_names_what_is_linked(made: &Made) -> Result<()> {
    let sbom: Value = serde_json::from_slice(&tree::read(&made.sbom)?)?;
    let known: BTreeSet<String> = sbom["components"]
        .as_array()
        .context("the SBOM has no components")?
        .iter()
        .filter_map(|one| {
            Some(format!(
                "{}-{}",
                one["name"].as_str()?,
                one["version"].as_str()?
            ))
        })
        .collect();
    let named = named_crates(&tree::read(&made.program)?);
    ensure!(!named.is_empty(), "the program names no crate");
    let unknown: Vec<_> = named.difference(&known).collect();
    ensure!(
        unknown.is_empty(),
        "linked, and not in the SBOM: {unknown:?}"
    );
    eprintln!(
        "SBOM: {} components; the program names {} of them, and no other",
        known.len(),
        named.len()
    );
    Ok(())
}

/// Crates whose sources' paths are in a program, as `NAME-VERSION`.
fn named_crates(program: &[u8]) -> BTreeSet<String> {
    let start = format!("{CARGO_HOME}/registry/src/");
    let mut named = BTreeSet::new();
    let mut rest = program;
    while let Some(at) = find(rest, start.as_bytes()) {
        rest = &rest[at + start.len()..];
        let line = &rest[..rest.len().min(200)];
        // The registry's folder, and the crate's in it.
        let mut parts = line.split(|byte| *byte == b'/');
        let (_registry, package) = (parts.next(), parts.next());
        if let Some(Ok(package)) = package.map(str::from_utf8)
            && package.bytes().all(|byte| byte.is_ascii_graphic())
        {
            named.insert(package.to_owned());
        }
    }
    named
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    // Few of the program's bytes are a slash.
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == part[0]) {
        if text[from + at..].starts_with(part) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn lintian(archive: &Archive, root: &Path, deb: &Path) -> Result<()> {
    unpacked(archive, "lintian", root)?;
    let inside = put(deb, root)?;
    let fail = "--fail-on=error,warning,info,pedantic";
    let result = run_in(
        root,
        &["lintian", "--allow-root", "--no-cfg", fail, &inside],
    );
    let _ = fs::remove_file(root.join(inside.trim_start_matches('/')));
    result?;
    eprintln!("lintian: nothing to say");
    Ok(())
}

/// Has it loaded and run by what builds and runs images.
fn buildah(archive: &Archive, root: &Path, image: &Path) -> Result<()> {
    unpacked(archive, "buildah", root)?;
    let inside = put(image, root)?;
    let script = format!(
        "set -e\n\
         printf '{{\"default\":[{{\"type\":\"insecureAcceptAnything\"}}]}}' >/tmp/policy.json\n\
         b='buildah --storage-driver vfs --root /tmp/storage --runroot /tmp/run'\n\
         image=$($b pull --quiet --signature-policy /tmp/policy.json oci-archive:{inside})\n\
         container=$($b from --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --signature-policy /tmp/policy.json --pull-never $image)\n\
         $b run --isolation chroot $container -- /usr/bin/splitlock-agent --version\n"
    );
    let result = run_in(root, &["sh", "-c", &script]);
    for left in ["tmp/storage", "tmp/run"] {
        let _ = fs::remove_dir_all(root.join(left));
    }
    let _ = fs::remove_file(root.join(inside.trim_start_matches('/')));
    result?;
    eprintln!("buildah: loads the image and runs it");
    Ok(())
}

fn unpacked(archive: &Archive, package: &str, root: &Path) -> Result<()> {
    if !root.exists() {
        eprintln!("Downloading {package}; it is unpacked in the target folder, not installed.");
        let packages = [&[package], &ESSENTIAL[..]].concat();
        archive.unpack_with_dependencies(&packages, SUITE, root)?;
    }
    for folder in ["dev", "proc", "sys", "tmp", "var/tmp", "etc/dpkg/origins"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // What the scripts of Debian's packages make: who one is, and which distribution this is.
    for (file, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/dpkg/origins/default", "Vendor: Debian\n"),
    ] {
        let file = root.join(file);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Puts a file where a program in there finds it; gives its path in there.
fn put(file: &Path, root: &Path) -> Result<String> {
    let name = file.file_name().context("a file has a name")?;
    let inside = PathBuf::from("/tmp").join(name);
    fs::copy(file, root.join("tmp").join(name))
        .with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(inside.to_string_lossy().into_owned())
}

/// Runs a command with an unpacked system as its root, and the machine's devices and processes.
fn run_in(root: &Path, words: &[&str]) -> Result<()> {
    // What unpacks images makes the root of its own read-only: it has to be a mount.
    const ENTER: &str = "mount --bind \"$0\" \"$0\" && \
                         mount --rbind /dev \"$0/dev\" && mount --rbind /proc \"$0/proc\" && \
                         mount --rbind /sys \"$0/sys\" && \
                         exec chroot \"$0\" /usr/bin/env -i LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin HOME=/root \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private"]);
    if !command::is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["sh", "-c", ENTER]).arg(root).args(words);
    command::run(&mut unshare)
}

fn schemas(workspace: &Workspace, made: &Made) -> Result<()> {
    let modules = workspace.tools_dir().join("validators");
    if !modules.exists() {
        let partial = modules.with_extension("partial");
        let _ = fs::remove_dir_all(&partial);
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(&partial)
            .args(VALIDATORS);
        command::output(&mut pip).context("the schemas come as Python packages")?;
        fs::rename(&partial, &modules).context("the validators")?;
    }
    let validate = workspace.root.join("packaging/validate.py");
    let mut python = Command::new("python3");
    python
        .arg(validate)
        .arg(&made.manifests)
        .arg(&made.sbom)
        .args(KUBERNETES)
        .env("PYTHONPATH", modules)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Err(error) = command::run(&mut python) {
        bail!("{error:#}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_found_in_a_program() {
        let program = b"\x7fELF/cargo/registry/src/index-1/serde_json-1.0.150/src/de.rs\0/car\
            /cargo/registry/src/index-1/libc-0.2.180/src/lib.rsindex out of bounds\
            /cargo/registry/src/index-1/serde_json-1.0.150/src/ser.rs";
        let found = named_crates(program);
        assert_eq!(
            found.iter().map(String::as_str).collect::<Vec<_>>(),
            ["libc-0.2.180", "serde_json-1.0.150"]
        );
    }
}
