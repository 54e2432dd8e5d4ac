//! The table of `docs/kernel-coverage.md`: kernel × hook × rung × result, from a full run.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{results::Boot, scenarios::USUAL};

const BEGIN: &str = "<!-- table begin -->\n";
const END: &str = "<!-- table end -->\n";

/// Puts the table of these boots into the page.
pub fn update(page: &Path, boots: &[Boot]) -> Result<()> {
    let text =
        fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        bail!("{} lacks the marks of the table", page.display());
    };
    let text = [&text[..begin + BEGIN.len()], &table(boots), &text[end..]].concat();
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn table(boots: &[Boot]) -> String {
    let boots: Vec<&Boot> = boots
        .iter()
        .filter(|boot| boot.scenario == USUAL.name)
        .collect();
    let mut table = String::from("| |");
    for boot in &boots {
        let _ = write!(table, " {} |", boot.release);
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(boots.len()));
    table.push('\n');
    let mut order: Vec<&str> = Vec::new();
    for hook in boots.iter().flat_map(|boot| &boot.hooks) {
        if !order.contains(&hook.probe.as_str()) {
            order.push(&hook.probe);
        }
    }
    for probe in order {
        let _ = write!(table, "| `{probe}` |");
        for boot in &boots {
            let cell = match boot.hooks.iter().find(|hook| hook.probe == probe) {
                Some(hook) if hook.via == "none" => "not there".to_owned(),
                Some(hook) if hook.counts == "none" => format!("{}, detail only", hook.via),
                Some(hook) => format!("{}, {}", hook.via, hook.counts),
                None => "-".to_owned(),
            };
            let _ = write!(table, " {cell} |");
        }
        table.push('\n');
    }
    table.push_str("| tests |");
    for boot in &boots {
        let mut results: BTreeMap<&str, usize> = BTreeMap::new();
        for test in boot.tests.values() {
            *results.entry(&test.result).or_default() += 1;
        }
        let of = |result| results.get(result).copied().unwrap_or(0);
        let _ = write!(
            table,
            " {} ok, {} failed, {} skipped |",
            of("ok"),
            of("FAILED"),
            of("ignored")
        );
    }
    table.push('\n');
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::results::tests::{boot, reports};

    #[test]
    fn each_kernel_is_a_column() {
        let boots = [
            boot("6.1.0-56-cloud-amd64", reports()),
            boot("7.3.4", reports()),
        ];
        let table = table(&boots);
        let head = format!(
            "| | {} | {} |\n|---|---|---|\n",
            boots[0].release, boots[1].release
        );
        assert!(table.starts_with(&head), "{table}");
        assert!(table.contains("\n| tests | "), "{table}");
        let columns = table.lines().map(|line| line.matches('|').count());
        assert!(columns.clone().all(|count| count == 4), "{table}");
    }
}
