//! What the project depends on, by the lists of deny.toml: licences, sources, and what is there twice.
//!
//! `cargo deny` reads the same file, and advisories besides; this needs nothing but cargo, and no network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// All packages of Cargo.lock that a build for this target can use.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // All that are resolved for the target; the packages are those of every target.
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let used: BTreeSet<&str> = nodes
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect();
    let packages = metadata["packages"].as_array().expect("packages");
    let used: Vec<Value> = packages
        .iter()
        .filter(|package| used.contains(package["id"].as_str().unwrap_or_default()))
        .cloned()
        .collect();
    assert!(used.len() > 100, "only {} packages", used.len());
    used
}

/// The strings of a list in deny.toml.
fn list(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let start = format!("\n{name} = [\n");
    let (_, rest) = text.split_once(&start).expect("deny.toml has the list");
    let (list, _) = rest.split_once("\n]").expect("the list ends");
    list.lines()
        .filter_map(|line| line.split('#').next())
        .filter_map(|line| line.split('"').nth(1))
        .map(str::to_owned)
        .collect()
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

fn id(package: &Value) -> String {
    format!("{}@{}", text(package, "name"), text(package, "version"))
}

/// Whether allowed licences meet an SPDX expression of AND, OR, WITH and one level of parentheses.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.replace(['(', ')'], "");
    // OR in parentheses binds closer there than AND around them, which all that are in use have.
    expression.split(" AND ").all(|part| {
        let mut alternatives = part.split(" OR ").map(str::trim);
        alternatives.any(|licence| allowed.contains(licence))
    })
}

#[test]
fn licences_are_allowed() {
    let allowed = list("allow");
    let refused: Vec<String> = packages()
        .iter()
        .filter(|package| !is_met(text(package, "license"), &allowed))
        .map(|package| format!("{} ({})", id(package), text(package, "license")))
        .collect();
    assert!(
        refused.is_empty(),
        "not allowed by deny.toml: {refused:?}; judge the licence, or do without the crate"
    );
}

#[test]
fn everything_comes_from_the_registry_with_a_checksum() {
    let elsewhere: Vec<String> = packages()
        .iter()
        .filter(|package| {
            let source = &package["source"];
            // The workspace's own have none.
            !source.is_null() && source != "registry+https://github.com/rust-lang/crates.io-index"
        })
        .map(id)
        .collect();
    assert!(elsewhere.is_empty(), "from elsewhere: {elsewhere:?}");
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is there");
    for package in lock.split("[[package]]").skip(1) {
        let from_registry = package.contains("\nsource = ");
        assert_eq!(
            package.contains("\nchecksum = "),
            from_registry,
            "{package}"
        );
    }
}

#[test]
fn what_is_there_twice_was_judged() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let of_name = versions
            .entry(text(&package, "name").to_owned())
            .or_default();
        of_name.insert(id(&package));
    }
    versions.retain(|_, of_name| of_name.len() > 1);
    let judged = list("skip");
    let new: Vec<&BTreeSet<String>> = versions
        .values()
        // All but one have to be in the list.
        .filter(|of_name| of_name.difference(&judged).count() > 1)
        .collect();
    assert!(
        new.is_empty(),
        "there more than once: {new:?}; choose dependencies that agree, or write the older ones into deny.toml"
    );
    let there: BTreeSet<&String> = versions.values().flatten().collect();
    let gone: Vec<&String> = judged.iter().filter(|id| !there.contains(id)).collect();
    assert!(
        gone.is_empty(),
        "deny.toml skips what is not there twice: {gone:?}"
    );
}

#[test]
fn expressions_are_read() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "BSD-3-Clause".to_owned()]);
    for (expression, met) in [
        ("MIT", true),
        ("GPL-2.0", false),
        ("", false),
        ("MIT/Apache-2.0", true),
        ("GPL-2.0 OR MIT", true),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
        ("MIT AND BSD-3-Clause", true),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression:?}");
    }
}
