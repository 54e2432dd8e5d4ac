//! The targets, as the agent's sources have them: tests named `fuzz_NAME`, each with the inputs that
//! are kept for it in `__fuzz__/NAME/corpus` beside its file, where bolero looks for them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::Workspace;

const SOURCES: &str = "splitlock-agent/src";

/// A target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Without `fuzz_`.
    pub name: String,
    /// The inputs that are kept.
    pub corpus: PathBuf,
}

/// All of them, by name.
pub fn find(workspace: &Workspace) -> Result<Vec<Target>> {
    let mut targets = vec![];
    look(&workspace.root.join(SOURCES), &mut targets)?;
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in targets.windows(2) {
        let [one, other] = pair else { continue };
        ensure!(
            one.name != other.name,
            "two targets are called {}",
            one.name
        );
    }
    Ok(targets)
}

fn look(folder: &Path, targets: &mut Vec<Target>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("__fuzz__") {
                look(&path, targets)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            for name in names(&text) {
                ensure!(
                    text.contains(&format!("bolero::check!(name = \"{name}\")")),
                    "{}: fuzz_{name} is not checked by the name {name:?}",
                    path.display()
                );
                targets.push(Target {
                    corpus: folder.join("__fuzz__").join(&name).join("corpus"),
                    name,
                });
            }
        }
    }
    Ok(())
}

fn names(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("fn fuzz_")?;
        Some(rest.split('(').next()?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of all that is kept.
    const KEPT: u64 = 300_000;

    #[test]
    fn each_target_has_inputs_and_each_input_a_target() {
        let workspace = Workspace::locate().unwrap();
        let targets = find(&workspace).unwrap();
        assert!(targets.len() > 30, "{}", targets.len());
        let mut bytes = 0;
        for target in &targets {
            let files = fs::read_dir(&target.corpus)
                .unwrap_or_else(|error| panic!("{}: {error}", target.corpus.display()));
            let sizes: Vec<u64> = files
                .map(|file| file.unwrap().metadata().unwrap().len())
                .collect();
            assert!(!sizes.is_empty(), "{}", target.name);
            bytes += sizes.iter().sum::<u64>();
        }
        assert!(bytes < KEPT, "the corpus has {bytes} bytes");
        let mut kept = vec![];
        folders(&workspace.root.join(SOURCES), &mut kept);
        for folder in kept {
            let has_target = targets
                .iter()
                .any(|target| target.corpus.starts_with(&folder));
            assert!(has_target, "{} is nobody's", folder.display());
        }
    }

    /// What is below `__fuzz__`.
    fn folders(folder: &Path, kept: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("__fuzz__") {
                kept.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            } else if path.is_dir() {
                folders(&path, kept);
            }
        }
    }

    #[test]
    fn targets_are_found_by_their_names() {
        let text = "    #[test]\n    fn fuzz_maps() {\n        fuzz_other();\n";
        assert_eq!(names(text).collect::<Vec<_>>(), ["maps"]);
    }
}
