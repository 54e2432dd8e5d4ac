//! Whether another build gives the same bytes: from a clone, in another folder, from nothing.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{Made, SUMS, Site, release::Release, tree::Tree};
use crate::{bpf_toolchain::record, command, workspace::Workspace};

/// Builds again and compares. Takes as long as the first build did.
pub fn check(
    workspace: &Workspace,
    release: &Release,
    first: &Made,
    changed: &[String],
) -> Result<()> {
    if !changed.is_empty() {
        bail!("the second build is of the commit: commit your changes first");
    }
    let folder = workspace.build_dir.join("dist-again");
    let site = Site {
        root: folder.join("source"),
        target: folder.join("target"),
    };
    Tree::new(folder.clone())?;
    command::run(
        Command::new("git")
            .args(["clone", "--quiet", "--no-hardlinks"])
            .arg(&workspace.root)
            .arg(&site.root),
    )?;
    // What compiles BPF is told, and nothing that it compiled.
    let toolchain = site.target.join(record::FOLDER);
    fs::create_dir_all(&toolchain)
        .with_context(|| format!("cannot create {}", toolchain.display()))?;
    let record = workspace.bpf_toolchain_dir().join(record::FILE);
    fs::copy(&record, toolchain.join(record::FILE))
        .with_context(|| format!("cannot copy {}", record.display()))?;
    let second = super::make(workspace, &site, release, &folder.join("dist"))?;
    let result = compare(&first.folder, &second.folder);
    if result.is_ok() {
        // A gigabyte; where they differ, somebody will want to know why.
        let _ = fs::remove_dir_all(&folder);
    }
    result
}

fn compare(first: &Path, second: &Path) -> Result<()> {
    let sums = |folder: &Path| {
        let file = folder.join(SUMS);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let (first_sums, second_sums) = (sums(first)?, sums(second)?);
    let different = different(&first_sums, &second_sums);
    if !different.is_empty() {
        bail!(
            "not the same bytes in {} and {}: {}",
            first.display(),
            second.display(),
            different.join(", ")
        );
    }
    eprintln!("{} files, the same bytes", first_sums.lines().count());
    Ok(())
}

/// Lines that one has and the other has not.
fn different<'a>(first: &'a str, second: &'a str) -> Vec<&'a str> {
    let only = |one: &'a str, other: &'a str| {
        one.lines()
            .filter(move |line| !other.lines().any(|known| known == *line))
    };
    only(first, second).chain(only(second, first)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_differs_and_a_file_that_is_missing_are_found() {
        let first = "aa  a\nbb  b\n";
        assert!(different(first, first).is_empty());
        assert_eq!(different(first, "aa  a\ncc  b\n"), ["bb  b", "cc  b"]);
        assert_eq!(different(first, "aa  a\n"), ["bb  b"]);
        assert_eq!(different("", "aa  a\n"), ["aa  a"]);
    }
}
