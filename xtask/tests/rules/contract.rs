//! The metrics contract, docs/metrics.md: families, their labels, and the values of labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::files::read;

/// The contract.
pub struct Contract {
    families: BTreeMap<String, BTreeSet<String>>,
    values: BTreeMap<String, BTreeSet<String>>,
}

/// Labels of each target; the rules rely on no others.
const TARGET: [&str; 2] = ["job", "instance"];

/// Prometheus's own and the Prometheus clients': what rules may ask besides.
const OTHERS: [&str; 2] = ["up", "process_start_time_seconds"];

impl Contract {
    /// Reads it.
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let text = read(&path);
        let mut families = BTreeMap::new();
        for row in rows(&text, "| metric |") {
            let [name, _kind, labels, ..] = &row[..] else {
                panic!("a row of families: {row:?}");
            };
            families.insert(ticked(name).remove(0), ticked(labels).into_iter().collect());
        }
        for name in OTHERS {
            families.insert(name.to_owned(), BTreeSet::new());
        }
        let mut values: BTreeMap<String, BTreeSet<String>> = rows(&text, "| label |")
            .iter()
            .map(|row| {
                (
                    ticked(&row[0]).remove(0),
                    ticked(&row[1]).into_iter().collect(),
                )
            })
            .collect();
        let causes = rows(&text, "| cause |")
            .iter()
            .map(|row| ticked(&row[0]).remove(0))
            .collect();
        values.insert("cause".to_owned(), causes);
        Self { families, values }
    }

    /// The labels that a family's series have in Prometheus, the target's included.
    pub fn labels(&self, family: &str) -> Option<BTreeSet<String>> {
        let mut labels = self.families.get(family)?.clone();
        labels.extend(TARGET.map(str::to_owned));
        Some(labels)
    }

    /// The families' names.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.families.keys().map(String::as_str)
    }

    /// All values of a label that has only some.
    pub fn values(&self, label: &str) -> Option<&BTreeSet<String>> {
        let listed = [
            "origin", "trap", "outcome", "kind", "mode", "feature", "counts", "cause",
        ];
        self.values.get(label).filter(|_| listed.contains(&label))
    }
}

/// The rows of the table whose head begins so.
#[track_caller]
fn rows(text: &str, head: &str) -> Vec<Vec<String>> {
    let rows: Vec<Vec<String>> = text
        .lines()
        .skip_while(|line| !line.starts_with(head))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "docs/metrics.md has no table {head}");
    rows
}

/// What stands between backticks.
fn ticked(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}
