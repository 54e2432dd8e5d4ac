//! The tables at the end, and the file of all results.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    results::{Boot, Test},
    scenarios::{CHANGING, USUAL},
};

/// Writes all results as JSON.
pub fn write(file: &Path, boots: &[Boot]) -> Result<()> {
    let json = serde_json::to_string_pretty(boots).context("results are JSON")?;
    fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))
}

/// Tests, hooks and failures.
pub fn tables(boots: &[Boot]) -> String {
    [tests(boots), hooks(boots), failures(boots)].concat()
}

/// A column of the tables.
fn column(boot: &Boot) -> String {
    if boot.scenario == USUAL.name {
        boot.kernel.clone()
    } else {
        format!("{} ({})", boot.kernel, boot.scenario)
    }
}

/// Kernel × test.
fn tests(boots: &[Boot]) -> String {
    // Those that lack something have one test each; that it failed is told below.
    let boots: Vec<&Boot> = boots
        .iter()
        .filter(|boot| {
            let many = [USUAL, CHANGING].map(|scenario| scenario.name);
            many.contains(&boot.scenario.as_str()) && !boot.tests.is_empty()
        })
        .collect();
    let names: BTreeSet<&String> = boots.iter().flat_map(|boot| boot.tests.keys()).collect();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut table = String::new();
    if boots.is_empty() {
        return table;
    }
    let _ = write!(table, "\n{:width$}", "test");
    for boot in &boots {
        let _ = write!(table, "  {:>7}", column(boot));
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        let _ = write!(table, "\n{name:width$}");
        for boot in &boots {
            let result = match boot.tests.get(name) {
                None => "-",
                Some(Test { result, reason }) if result == "ignored" => {
                    for reason in reason.as_deref().unwrap_or("-").split("; ") {
                        *reasons.entry(reason).or_default() += 1;
                    }
                    "skips"
                }
                Some(Test { result, .. }) => result,
            };
            let width = column(boot).len().max(7);
            let _ = write!(table, "  {result:>width$}");
        }
    }
    table.push('\n');
    for (reason, count) in reasons {
        let _ = writeln!(table, "skipped {count} times: {reason}");
    }
    table
}

/// Hook × rung × what its count means: the kernels where it is so.
fn hooks(boots: &[Boot]) -> String {
    let mut order: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<&str, BTreeMap<[&str; 2], Vec<String>>> = BTreeMap::new();
    for boot in boots {
        for hook in &boot.hooks {
            if !order.contains(&hook.probe.as_str()) {
                order.push(&hook.probe);
            }
            rows.entry(&hook.probe)
                .or_default()
                .entry([&hook.via, &hook.counts])
                .or_default()
                .push(column(boot));
        }
    }
    let mut table = format!("\n{:24}  {:14}  {:16}  kernels\n", "hook", "via", "counts");
    for probe in order {
        for ([via, counts], kernels) in &rows[probe] {
            let kernels = kernels.join(", ");
            let _ = writeln!(table, "{probe:24}  {via:14}  {counts:16}  {kernels}");
        }
    }
    for boot in boots {
        let refused = boot.hooks.iter().filter(|hook| !hook.refused.is_empty());
        for hook in refused {
            let reasons = hook.refused.join("; ");
            let _ = writeln!(table, "{}: {}: {reasons}", column(boot), hook.probe);
        }
        if let Some(refusal) = &boot.refusal {
            let _ = writeln!(table, "{}: the agent does not run: {refusal}", column(boot));
        }
    }
    table
}

/// What failed, where to look, and what hung once.
fn failures(boots: &[Boot]) -> String {
    let mut text = String::from("\n");
    for boot in boots {
        let column = column(boot);
        for hang in &boot.hangs {
            let _ = writeln!(text, "{column}: at the first attempt {hang}");
        }
        let failures = boot.failures();
        let outcome = if failures.is_empty() {
            "ok".to_owned()
        } else {
            format!(
                "FAILED, see {}: {}",
                boot.log.display(),
                failures.join(", ")
            )
        };
        let _ = writeln!(
            text,
            "{column} {}: {:.0} s, {outcome}",
            boot.release, boot.seconds
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{
        protocol::Report,
        results::tests::{boot, reports},
    };

    fn boots() -> Vec<Boot> {
        let mut failing = reports();
        failing[4] = Report::Test {
            test: "a::works".to_owned(),
            result: "FAILED".to_owned(),
        };
        vec![
            boot("6.1.0-56-cloud-amd64", reports()),
            boot("7.3.4+deb13-cloud-amd64", failing),
        ]
    }

    #[test]
    fn the_tables_have_every_test_hook_and_failure() {
        let tables = tables(&boots());
        let has = |line: &str| assert!(tables.lines().any(|found| found == line), "{tables}");
        has("test          6.1      7.3");
        has("a::needs    skips    skips");
        has("a::works       ok   FAILED");
        has("skipped 2 times: needs #AC");
        has("kvm_exit                  tracepoint      every_trap        6.1, 7.3");
        has("handle_bus_lock           none            none              6.1, 7.3");
        has("6.1: kvm_exit: raw_tracepoint: no BTF");
        assert!(tables.contains("FAILED, see /log: a::works"), "{tables}");
    }

    #[test]
    fn the_file_names_kernels_and_results() {
        let json = serde_json::to_value(boots()).unwrap();
        assert_eq!(json[0]["hooks"][0]["via"], "tracepoint");
        assert_eq!(json[1]["tests"]["a::works"]["result"], "FAILED");
    }
}
