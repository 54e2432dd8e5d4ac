//! The rules and the routing of `dashboards/`, with shorter waits: nobody watches a demo for ten
//! minutes.
//!
//! Only waits are changed, all by one divisor. Expressions, thresholds and the windows of rates are
//! those of the files.

use anyhow::{Context as _, Result, bail, ensure};

/// Waits are this many times as short.
pub const TIMES: u64 = 30;

/// Keys of rules whose value is a wait.
const OF_RULES: [&str; 3] = ["for", "keep_firing_for", "interval"];
/// Keys of Alertmanager's routes whose value is a wait.
const OF_ROUTES: [&str; 3] = ["group_wait", "group_interval", "repeat_interval"];
/// Where the receivers of the routing's example are.
const RECEIVERS: &str = "http://127.0.0.1:5001/";

/// A file of rules. One without waits stays as it is.
pub fn rules(text: &str) -> Result<String> {
    shortened(text, &OF_RULES)
}

/// Alertmanager's configuration, with all receivers at `address`.
pub fn routing(text: &str, address: &str) -> Result<String> {
    ensure!(text.contains(RECEIVERS), "no receiver is at {RECEIVERS}");
    let text = shortened(text, &OF_ROUTES)?;
    Ok(text.replace(RECEIVERS, &format!("http://{address}/")))
}

fn shortened(text: &str, keys: &[&str]) -> Result<String> {
    text.split_inclusive('\n')
        .map(|line| {
            let Some((before, value)) = line.split_once(": ") else {
                return Ok(line.to_owned());
            };
            let key = before.trim_start_matches([' ', '-']);
            if !keys.contains(&key) {
                return Ok(line.to_owned());
            }
            let wait = seconds(value.trim()).with_context(|| line.trim().to_owned())?;
            Ok(format!("{before}: {}s\n", (wait / TIMES).max(1)))
        })
        .collect()
}

/// A duration with one unit, which is all that the files have.
fn seconds(duration: &str) -> Result<u64> {
    let digits = duration.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &duration[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => bail!("{duration:?} is no duration in s, m, h or d"),
    };
    let number: u64 = digits
        .parse()
        .with_context(|| format!("{duration:?} is no duration"))?;
    Ok(number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::files::{ROUTING, RULES, read};
    use std::path::Path;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    #[test]
    fn only_waits_become_shorter() {
        let text = "groups:\n  - name: a\n    interval: 1m\n    rules:\n      - alert: A\n        \
                    expr: rate(a[5m]) > 1 # for: ever\n        for: 10m\n        keep_firing_for: 1h\n";
        let quick = rules(text).unwrap();
        assert_eq!(
            quick,
            text.replace("interval: 1m", "interval: 2s")
                .replace("for: 10m", "for: 20s")
                .replace("for: 1h", "for: 120s")
        );
    }

    #[test]
    fn a_wait_that_is_not_understood_is_an_error() {
        for wait in ["1h30m", "", "ten", "5"] {
            assert!(rules(&format!("for: {wait}\n")).is_err(), "{wait}");
        }
    }

    #[test]
    fn nothing_waits_for_nothing() {
        assert_eq!(rules("for: 5s\n").unwrap(), "for: 1s\n");
    }

    /// Whatever is not a wait is the same, line by line.
    #[test]
    fn the_files_keep_what_they_say() {
        let mut changed = 0;
        for file in RULES {
            let text = read(root(), file).unwrap();
            let quick = rules(&text).unwrap();
            assert_eq!(text.lines().count(), quick.lines().count());
            for (line, quick) in text.lines().zip(quick.lines()) {
                if line == quick {
                    continue;
                }
                changed += 1;
                let key = line.trim_start_matches([' ', '-']).split(':').next();
                assert!(OF_RULES.contains(&key.unwrap()), "{line}");
            }
        }
        let alerts = read(root(), RULES[0]).unwrap();
        let with_wait = alerts.matches("\n        for: ").count();
        assert!(with_wait > 15, "{with_wait}");
        assert!(changed > with_wait);
    }

    #[test]
    fn the_routing_leads_to_the_receiver() {
        let text = read(root(), ROUTING).unwrap();
        let quick = routing(&text, "127.0.0.1:1234").unwrap();
        assert!(!quick.contains("5001"));
        assert_eq!(quick.matches("http://127.0.0.1:1234/").count(), 3);
        assert!(quick.contains("group_wait: 1s\n"));
        assert!(routing("route: {}\n", "127.0.0.1:1").is_err());
    }
}
