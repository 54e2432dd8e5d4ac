//! Each alert has a runbook, and what the pages name exists.

use std::collections::BTreeSet;

use super::{
    Test,
    contract::Contract,
    files::{alerts, dashboards, list, read, rules},
    queries::words_after,
};

pub const TESTS: &[Test] = &[
    Test {
        name: "runbooks::one_for_each_alert",
        needs: &[],
        run: one_for_each_alert,
    },
    Test {
        name: "runbooks::what_the_pages_name_exists",
        needs: &[],
        run: what_the_pages_name_exists,
    },
    Test {
        name: "runbooks::the_table_has_each_alert",
        needs: &[],
        run: the_table_has_each_alert,
    },
];

fn names() -> BTreeSet<String> {
    alerts().into_iter().map(|(name, _)| name).collect()
}

fn one_for_each_alert() {
    let mut found = BTreeSet::new();
    for file in list("runbooks", ".md") {
        let name = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if !name.starts_with("SplitLock") {
            continue;
        }
        let text = read(&file);
        let headings: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
        let expected = [
            format!("# {name}"),
            "## Meaning".to_owned(),
            "## Impact".to_owned(),
            "## Diagnosis".to_owned(),
            "## Mitigation".to_owned(),
        ];
        assert_eq!(headings, expected, "{}", file.display());
        let (_, diagnosis) = text.split_once("## Diagnosis").expect("it has the heading");
        assert!(diagnosis.contains("```"), "{}: no command", file.display());
        found.insert(name);
    }
    assert_eq!(found, names());
}

fn what_the_pages_name_exists() {
    let contract = Contract::read();
    let families: BTreeSet<&str> = contract.families().collect();
    let names = names();
    let recorded: Vec<String> = rules().into_iter().filter_map(|rule| rule.record).collect();
    let mut pages = list("runbooks", ".md");
    pages.push(dashboards("README.md"));
    for page in pages {
        let mut text = read(&page);
        // Names of recorded series hold names of families.
        for name in &recorded {
            text = text.replace(name, "");
        }
        let shown = page.display();
        for word in words_after(&text, "SplitLock") {
            let name = format!("SplitLock{word}");
            assert!(
                word.is_empty() || names.contains(&name),
                "{shown}: no alert {name}"
            );
        }
        for word in words_after(&text, "splitlock_") {
            let name = format!("splitlock_{word}");
            // A name that goes on with a pattern, as in grep -E 'splitlock_(vm|host)'.
            let is_begin = word.is_empty() || word.ends_with('_');
            assert!(
                is_begin || families.contains(name.as_str()),
                "{shown}: no metric {name}"
            );
        }
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let path = page.parent().expect("a folder").join(target);
                assert!(path.exists(), "{shown}: no {target}");
            }
        }
    }
}

fn the_table_has_each_alert() {
    let text = read(&dashboards("README.md"));
    for (name, rule) in alerts() {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| [{name}](runbooks/{name}.md)")))
            .unwrap_or_else(|| panic!("dashboards/README.md has no row of {name}"));
        let severity = &rule.labels["severity"];
        assert!(row.contains(severity.as_str()), "{severity}: {row}");
    }
}
