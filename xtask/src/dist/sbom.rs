//! What is in the program, as CycloneDX has it: the crates that are linked, with their licences and
//! checksums, and the two libraries that no lock file names.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{
    Site,
    release::Release,
    tree::{Tree, read},
};
use crate::{command, workspace::Workspace};

/// The program, and the BPF programs that are embedded in it.
const ROOTS: [&str; 2] = ["splitlock-agent", "splitlock-ebpf"];

/// Writes it.
pub fn build(workspace: &Workspace, site: &Site, release: &Release, out: &Tree) -> Result<String> {
    let mut metadata = workspace.cargo();
    metadata
        .current_dir(&site.root)
        .args(["metadata", "--format-version=1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Value = serde_json::from_str(&command::output(&mut metadata)?)?;
    let mut tree = workspace.cargo();
    tree.current_dir(&site.root)
        .args(["tree", "--locked", "--prefix=none", "--format={p}"])
        .args(["--edges=normal,no-proc-macro"])
        .args(["--target", "x86_64-unknown-linux-gnu"]);
    for root in ROOTS {
        tree.args(["--package", root]);
    }
    let built = built(&command::output(&mut tree)?);
    let lock = String::from_utf8(read(&site.root.join("Cargo.lock"))?)?;
    let text =
        serde_json::to_string_pretty(&document(&metadata, &built, &checksums(&lock), release)?)?;
    out.text("sbom.cdx.json", &text)?;
    Ok(text)
}

/// Names and versions of what is really built: `cargo metadata` has optional dependencies too, where a
/// feature of theirs is asked for in case they are used.
fn built(tree: &str) -> BTreeSet<(String, String)> {
    tree.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            Some((name.to_owned(), version.to_owned()))
        })
        .collect()
}

fn document(
    metadata: &Value,
    built: &BTreeSet<(String, String)>,
    checksums: &BTreeMap<(String, String), String>,
    release: &Release,
) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> = array(metadata, "packages")?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let edges = edges(&metadata["resolve"])?;
    let roots: Vec<&str> = packages
        .iter()
        .filter(|(_, package)| ROOTS.iter().any(|name| package["name"] == **name))
        .map(|(id, _)| *id)
        .collect();
    if roots.len() != ROOTS.len() {
        bail!("cargo metadata does not name {ROOTS:?}");
    }
    let left_out: BTreeSet<&str> = packages
        .iter()
        .filter(|(_, package)| !built.contains(&named(package)))
        .map(|(id, _)| *id)
        .collect();
    let linked = reachable(&roots, &edges, &left_out);
    let mut components = vec![
        library("glibc", &glibc()?, "LGPL-2.1-or-later"),
        library("rust-std", &rust()?, "MIT OR Apache-2.0"),
    ];
    let mut dependencies = Vec::new();
    for id in &linked {
        let package = packages
            .get(id)
            .with_context(|| format!("no package {id}"))?;
        if package["name"] != ROOTS[0] {
            components.push(component(package, checksums)?);
        }
        let mut on: Vec<String> = edges[id]
            .iter()
            .filter(|id| !left_out.contains(*id))
            .map(|id| packages.get(id).map_or_else(String::new, |to| purl(to)))
            .collect();
        on.sort();
        dependencies.push(json!({ "ref": purl(package), "dependsOn": on }));
    }
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": release.date()?,
            "component": {
                "type": "application",
                "bom-ref": format!("pkg:cargo/{}@{}", ROOTS[0], release.version),
                "name": ROOTS[0],
                "version": release.version,
                "purl": format!("pkg:cargo/{}@{}", ROOTS[0], release.version),
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// Which package links which: dependencies of builds and tests are in no program.
fn edges(resolve: &Value) -> Result<BTreeMap<&str, Vec<&str>>> {
    let mut edges = BTreeMap::new();
    for node in array(resolve, "nodes")? {
        let id = node["id"].as_str().context("a node has an id")?;
        let linked = array(node, "deps")?
            .iter()
            .filter(|dep| {
                let kinds = dep["dep_kinds"].as_array();
                kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
            })
            .filter_map(|dep| dep["pkg"].as_str())
            .collect();
        edges.insert(id, linked);
    }
    Ok(edges)
}

fn reachable<'a>(
    roots: &[&'a str],
    edges: &BTreeMap<&'a str, Vec<&'a str>>,
    left_out: &BTreeSet<&'a str>,
) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&str> = roots.to_vec();
    while let Some(id) = next.pop() {
        if !left_out.contains(id) && found.insert(id) {
            next.extend(edges.get(id).into_iter().flatten());
        }
    }
    found
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Value> {
    let (name, version) = named(package);
    let purl = purl(package);
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
    });
    let licence = package["license"].as_str().unwrap_or_default();
    if licence.is_empty() {
        bail!("{name} {version} names no licence");
    }
    // An older way of writing OR.
    let words: Vec<&str> = licence.split('/').map(str::trim).collect();
    component["licenses"] = json!([{ "expression": words.join(" OR ") }]);
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    Ok(component)
}

fn named(package: &Value) -> (String, String) {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("version"))
}

fn library(name: &str, version: &str, licence: &str) -> Value {
    let purl = format!("pkg:generic/{name}@{version}");
    json!({
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        "licenses": [{ "expression": licence }],
    })
}

/// What identifies a package everywhere.
fn purl(package: &Value) -> String {
    let (name, version) = named(package);
    format!("pkg:cargo/{name}@{version}")
}

/// Of each package of a registry, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    lock.split("[[package]]")
        .filter_map(|package| {
            let field = |key: &str| {
                package
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
                    .map(|value| value.trim_matches('"').to_owned())
            };
            Some(((field("name")?, field("version")?), field("checksum")?))
        })
        .collect()
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key]
        .as_array()
        .with_context(|| format!("cargo metadata has no {key}"))
}

/// The static one that is here.
fn glibc() -> Result<String> {
    let text = command::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    last_word(&text)
}

fn rust() -> Result<String> {
    let text = command::output(Command::new("rustc").args(["--version"]))?;
    let version = text.split(' ').nth(1);
    version.context("rustc says no version").map(str::to_owned)
}

fn last_word(text: &str) -> Result<String> {
    let word = text.split_whitespace().last();
    word.context("an empty answer").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "packages": [
            {"id": "a", "name": "splitlock-agent", "version": "0.1.0", "license": "MIT OR Apache-2.0"},
            {"id": "e", "name": "splitlock-ebpf", "version": "0.1.0", "license": "MIT OR Apache-2.0"},
            {"id": "l", "name": "linked", "version": "2.0.0", "license": "MIT/Apache-2.0"},
            {"id": "m", "name": "a-macro", "version": "1.0.0", "license": "MIT"},
            {"id": "b", "name": "of-the-build", "version": "3.0.0", "license": "MIT"},
            {"id": "k", "name": "in-the-kernel", "version": "1.0.0", "license": "MIT"}
        ],
        "resolve": {"nodes": [
            {"id": "a", "deps": [
                {"pkg": "l", "dep_kinds": [{"kind": null}, {"kind": "dev"}]},
                {"pkg": "m", "dep_kinds": [{"kind": null}]},
                {"pkg": "b", "dep_kinds": [{"kind": "build"}]}]},
            {"id": "e", "deps": [{"pkg": "k", "dep_kinds": [{"kind": null}]}]},
            {"id": "l", "deps": []}, {"id": "b", "deps": []}, {"id": "k", "deps": []},
            {"id": "m", "deps": []}
        ]}
    }"#;
    const LOCK: &str =
        "version = 4\n\n[[package]]\nname = \"linked\"\nversion = \"2.0.0\"\nchecksum = \"abcd\"\n";

    #[test]
    fn what_is_linked_is_in_it_and_what_builds_is_not() {
        let metadata = serde_json::from_str(METADATA).unwrap();
        let release = Release {
            version: "0.1.0".to_owned(),
            revision: "0".repeat(40),
            time: 0,
        };
        let tree = "splitlock-agent v0.1.0 (/a)\nlinked v2.0.0\n\nsplitlock-ebpf v0.1.0 (/e)\n\
                    in-the-kernel v1.0.0\nlinked v2.0.0 (*)\n";
        let document = document(&metadata, &built(tree), &checksums(LOCK), &release).unwrap();
        let components = document["components"].as_array().unwrap();
        let names: Vec<&str> = components
            .iter()
            .filter_map(|component| component["name"].as_str())
            .collect();
        let expected = [
            "glibc",
            "rust-std",
            "splitlock-ebpf",
            "in-the-kernel",
            "linked",
        ];
        assert_eq!(names, expected);
        let linked = &components[4];
        assert_eq!(linked["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(linked["hashes"][0]["content"], "abcd");
        assert_eq!(
            document["dependencies"][0]["dependsOn"][0],
            "pkg:cargo/linked@2.0.0"
        );
    }
}
