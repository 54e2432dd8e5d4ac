//! The files of `dashboards/` as the tests read them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

/// A file or folder of `dashboards/`.
pub fn dashboards(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../dashboards")
        .join(path)
}

/// The text of a file, which must be there.
#[track_caller]
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder of `dashboards/` that end so, in order.
#[track_caller]
pub fn list(folder: &str, end: &str) -> Vec<PathBuf> {
    let folder = dashboards(folder);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}: no *{end}", folder.display());
    files
}

/// A rule, recording or alerting.
#[derive(Clone, Deserialize)]
pub struct Rule {
    pub record: Option<String>,
    pub alert: Option<String>,
    pub expr: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// All rules, in no order that means anything.
pub fn rules() -> Vec<Rule> {
    list("rules", ".yaml")
        .iter()
        .flat_map(|file| parse::<RuleFile>(file).groups)
        .flat_map(|group| group.rules)
        .collect()
}

/// All alerting rules with their names; one name may have several.
pub fn alerts() -> Vec<(String, Rule)> {
    rules()
        .into_iter()
        .filter_map(|rule| Some((rule.alert.clone()?, rule)))
        .collect()
}

/// A test of promtool's.
#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub input_series: Vec<Input>,
    #[serde(default)]
    pub alert_rule_test: Vec<AlertTest>,
}

/// A series that a test makes.
#[derive(Deserialize)]
pub struct Input {
    pub series: String,
}

/// What is to be firing, if anything.
#[derive(Deserialize)]
pub struct AlertTest {
    pub alertname: String,
    pub exp_alerts: Vec<Expected>,
}

/// One that is to be firing.
#[derive(Deserialize)]
pub struct Expected {
    pub exp_labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<Case>,
}

/// All of promtool's tests.
pub fn cases() -> Vec<Case> {
    list("rules/tests", ".yaml")
        .iter()
        .flat_map(|file| parse::<TestFile>(file).tests)
        .collect()
}

#[track_caller]
fn parse<T: DeserializeOwned>(file: &Path) -> T {
    serde_saphyr::from_str(&read(file))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
