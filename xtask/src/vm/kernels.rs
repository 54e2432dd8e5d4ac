//! Which kernels are tested, and getting them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    archive::Archive,
    candidates::{Candidate, Series, all_series, candidates, named, numbers, of},
};

/// The kernels of Debian's releases; to them come the [`NEWEST`] that there are.
const RELEASED: [Series; 3] = [Series(5, 10), Series(6, 1), Series(6, 12)];
/// How many of the newest series are tested.
const NEWEST: usize = 2;

/// A kernel, unpacked.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its series.
    pub series: Series,
    /// As `uname -r` says it.
    pub release: String,
    /// The package's version.
    pub package_version: String,
    /// Where the package is unpacked.
    pub folder: PathBuf,
    /// The file to boot.
    pub image: PathBuf,
}

impl Kernel {
    /// The file of a module, which may be compressed; a kernel may have it built in.
    pub fn module(&self, name: &str) -> Option<PathBuf> {
        let file = format!("{name}.ko");
        find(
            &self.folder.join("lib/modules").join(&self.release),
            &|found| {
                found
                    .strip_prefix(&file)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            },
        )
    }
}

/// Gets the kernels that these words name, oldest first: `6.12` (a series), a whole release,
/// `oldest` or `newest`; without words all that are tested.
pub fn get(archive: &Archive, words: &[String], folder: &Path) -> Result<Vec<Kernel>> {
    let names = archive.names("^linux-(image|headers)-[0-9].*-cloud-amd64(-unsigned)?$")?;
    let candidates = candidates(&names);
    let mut kernels = Vec::new();
    if words.is_empty() {
        for series in RELEASED {
            kernels.push(get_first(archive, &of(&candidates, series), folder)?);
        }
        kernels.extend(get_newest(archive, &candidates, folder, NEWEST)?);
    }
    for word in words {
        let kernel = match word.as_str() {
            "oldest" => get_first(archive, &of(&candidates, RELEASED[0]), folder)?,
            "newest" => get_newest(archive, &candidates, folder, 1)?.remove(0),
            word => {
                let named = named(&candidates, word);
                if named.is_empty() {
                    let series = all_series(&candidates);
                    let series: Vec<String> = series.iter().map(Series::to_string).collect();
                    bail!(
                        "no kernel {word} in the mirror; there are {}",
                        series.join(", ")
                    );
                }
                get_first(archive, &named, folder)?
            }
        };
        kernels.push(kernel);
    }
    kernels.sort_by_key(|kernel| numbers(&kernel.release));
    kernels.dedup_by(|a, b| a.release == b.release);
    Ok(kernels)
}

/// The best kernels of the newest series that are not among the released ones, newest first.
fn get_newest(
    archive: &Archive,
    candidates: &[Candidate],
    folder: &Path,
    count: usize,
) -> Result<Vec<Kernel>> {
    let mut kernels = Vec::new();
    let series = all_series(candidates).into_iter().rev();
    for series in series.filter(|series| !RELEASED.contains(series)) {
        match get_first(archive, &of(candidates, series), folder) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => eprintln!("{series}: {error:#}; trying the series before it"),
        }
        if kernels.len() == count {
            return Ok(kernels);
        }
    }
    bail!(
        "the mirror has no {count} kernels newer than {}",
        RELEASED[2]
    )
}

/// The first candidate whose files the mirror really has.
fn get_first(archive: &Archive, candidates: &[&Candidate], folder: &Path) -> Result<Kernel> {
    let mut last = None;
    for candidate in candidates {
        match get_one(archive, candidate, folder) {
            Ok(kernel) => return Ok(kernel),
            Err(error) => {
                eprintln!(
                    "{}: {error:#}; trying the version before it",
                    candidate.package
                );
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) => Err(error.context("the mirror has none of its versions")),
        None => bail!("the mirror's lists have no version of it"),
    }
}

fn get_one(archive: &Archive, candidate: &Candidate, folder: &Path) -> Result<Kernel> {
    let Candidate {
        series,
        release,
        package,
        headers: _,
    } = candidate;
    let known = archive.package(package)?;
    let unpacked = folder.join(format!("{release}_{}", known.version));
    if !unpacked.exists() {
        eprintln!("{release}: downloading {package} {}", known.version);
        let mut packages = vec![package.clone()];
        // From 7.x on the image is a package of dependencies.
        packages.extend(known.depends.into_iter().filter(|name| {
            name.starts_with("linux-binary-") || name.starts_with("linux-modules-")
        }));
        archive.unpack(&packages, &unpacked)?;
    }
    let image = [
        unpacked.join("boot").join(format!("vmlinuz-{release}")),
        unpacked.join("lib/modules").join(release).join("vmlinuz"),
    ]
    .into_iter()
    .find(|file| file.exists())
    .with_context(|| format!("no vmlinuz in {}", unpacked.display()))?;
    Ok(Kernel {
        series: *series,
        release: release.clone(),
        package_version: known.version,
        folder: unpacked,
        image,
    })
}

/// The first file below a folder whose name fulfils a condition.
fn find(folder: &Path, condition: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            if let Some(found) = find(&path, condition) {
                return Some(found);
            }
        } else if condition(&path.file_name()?.to_string_lossy()) {
            return Some(path);
        }
    }
    None
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A kernel of this release that is nowhere.
    pub fn kernel(release: &str) -> Kernel {
        let candidates = candidates(&[format!("linux-image-{release}")]);
        Kernel {
            series: candidates[0].series,
            release: release.to_owned(),
            package_version: "1".to_owned(),
            folder: "/nowhere".into(),
            image: "/nowhere/vmlinuz".into(),
        }
    }
}
