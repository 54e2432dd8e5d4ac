//! What of a grown corpus is worth keeping in the repository.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{engine::Engine, ensure_folder, targets::Target};

/// Bytes and files for each target, beside the inputs that a person wrote.
const BYTES: usize = 4 << 10;
const FILES: usize = 16;
/// What the names of kept inputs begin with.
const PREFIX: &str = "grown-";

/// Adds the smallest inputs that lead to code which those in the corpus do not lead to. libFuzzer
/// chooses them; what was kept so before is chosen anew.
pub fn keep(engine: &Engine, target: &Target) -> Result<()> {
    let grown = engine.grown(target)?;
    for path in files(&target.corpus)? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(rest) = name.strip_prefix(PREFIX) {
            let to = grown.join(rest);
            fs::copy(&path, &to).with_context(|| to.display().to_string())?;
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    let merged = engine.folder().join(format!("{}-merged", target.name));
    if merged.exists() {
        fs::remove_dir_all(&merged).with_context(|| merged.display().to_string())?;
    }
    ensure_folder(merged.clone())?;
    // The written inputs come first, so that only what goes beyond them is added.
    for path in files(&target.corpus)? {
        let to = merged.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &to).with_context(|| to.display().to_string())?;
    }
    let written = files(&merged)?;
    let arguments = [
        merged.display().to_string(),
        grown.display().to_string(),
        "-merge=1".to_owned(),
        "-max_len=16384".to_owned(),
    ];
    let mut command = engine.command(target, &arguments)?;
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let mut added = vec![];
    for path in files(&merged)? {
        if !written.contains(&path) {
            added.push(fs::read(&path).with_context(|| path.display().to_string())?);
        }
    }
    for input in chosen(added) {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let to = target
            .corpus
            .join(format!("{PREFIX}{:016x}", hasher.finish()));
        fs::write(&to, input).with_context(|| to.display().to_string())?;
    }
    Ok(())
}

/// The smallest, as many as there is room for.
fn chosen(mut inputs: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    inputs.sort_by_key(Vec::len);
    let mut left = BYTES;
    inputs
        .into_iter()
        .take(FILES)
        .take_while(|input| {
            let fits = input.len() <= left;
            left = left.saturating_sub(input.len());
            fits
        })
        .collect()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_are_kept_within_bounds() {
        let inputs = |sizes: &[usize]| sizes.iter().map(|size| vec![0; *size]).collect::<Vec<_>>();
        let sizes = |kept: Vec<Vec<u8>>| kept.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(chosen(inputs(&[3000, 10, 2000]))), [10, 2000]);
        assert_eq!(chosen(inputs(&[1; 99])).len(), FILES);
        assert!(chosen(inputs(&[BYTES + 1])).is_empty());
    }
}
