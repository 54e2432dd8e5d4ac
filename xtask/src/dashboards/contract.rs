//! The metrics that a query may name, with their labels: the table of `docs/metrics.md`, and what
//! Prometheus and the agent's process bring.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Labels of a series.
pub type Labels = BTreeSet<String>;

/// What every series has from its scrape.
const OF_THE_SCRAPE: &[&str] = &["job", "instance"];

/// Not of the agent's own.
const OTHERS: &[&str] = &[
    "up",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
];

/// All metrics by name.
pub fn families() -> BTreeMap<String, Labels> {
    let mut families = documented();
    for name in OTHERS {
        families.insert((*name).to_owned(), labels_of(&[]));
    }
    families
}

fn labels_of(own: &[&str]) -> Labels {
    let all = own.iter().chain(OF_THE_SCRAPE);
    all.map(|label| (*label).to_owned()).collect()
}

fn documented() -> BTreeMap<String, Labels> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(&path).unwrap();
    let (_, rest) = text.split_once("<!-- families begin -->").unwrap();
    let (table, _) = rest.split_once("<!-- families end -->").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let families: BTreeMap<String, Labels> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let labels: Vec<&str> = cells[3]
                .split(", ")
                .map(|label| label.trim_matches('`'))
                .filter(|label| !label.is_empty())
                .collect();
            (cells[1].trim_matches('`').to_owned(), labels_of(&labels))
        })
        .collect();
    assert!(families.len() > 20, "{}: {families:?}", path.display());
    families
}

#[test]
fn the_table_is_read_with_its_labels() {
    let families = families();
    let traps = &families["splitlock_host_traps_total"];
    let expected = ["instance", "job", "origin", "outcome", "trap"];
    assert!(traps.iter().eq(expected), "{traps:?}");
    assert_eq!(families["splitlock_host_mitigation_enabled"].len(), 2);
}
