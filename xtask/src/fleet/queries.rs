//! Every rule, and every query of every dashboard, at the fleet's Prometheus: none is an error there.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{interrupt::Interrupt, prometheus::Prometheus};
use crate::dashboards::{Choice, queries};

/// The slowest group of rules is evaluated in less.
const EVALUATION: Duration = Duration::from_secs(30);
/// Seconds that a panel shows.
const RANGE: u64 = 300;
/// Seconds from one of its points to the next.
const STEP: &str = "15";

/// What was asked without an error.
pub struct Asked {
    /// Rules, recording and alerting.
    pub rules: usize,
    /// Queries of panels.
    pub queries: usize,
    /// Of these, those that had an answer.
    pub answered: usize,
}

/// Asks them all.
///
/// # Errors
/// The first rule or query that Prometheus refuses or cannot carry out.
pub fn ask_all(prometheus: &Prometheus, interrupt: &Interrupt) -> Result<Asked> {
    let rules = rules(prometheus, interrupt)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("a clock before 1970")?
        .as_secs();
    let (start, end) = ((now - RANGE).to_string(), now.to_string());
    let choice = Choice {
        range: format!("{RANGE}s"),
        ..Choice::default()
    };
    let (mut asked, mut answered) = (0, 0);
    for query in queries(&choice) {
        interrupt.check()?;
        let expr = query.expr.as_str();
        let answer = if query.over_range {
            let times = [("start", start.as_str()), ("end", &end), ("step", STEP)];
            prometheus.ask("query_range", &[&[("query", expr)], &times[..]].concat())
        } else {
            prometheus.ask("query", &[("query", expr), ("time", &end)])
        };
        let answer = answer
            .with_context(|| format!("panel {:?} of {}: {expr}", query.panel, query.dashboard))?;
        let series = answer["result"].as_array().map_or(0, Vec::len);
        asked += 1;
        answered += usize::from(series > 0);
    }
    Ok(Asked {
        rules,
        queries: asked,
        answered,
    })
}

/// Prometheus evaluates them, with what their annotations ask: it says how that went.
fn rules(prometheus: &Prometheus, interrupt: &Interrupt) -> Result<usize> {
    let start = Instant::now();
    loop {
        interrupt.check()?;
        let answer = prometheus.ask("rules", &[])?;
        let rules = list(&answer);
        let unknown = rules.iter().filter(|rule| rule["health"] == "unknown");
        if unknown.count() == 0 {
            ensure!(!rules.is_empty(), "no rules were loaded");
            for rule in &rules {
                if rule["health"] != "ok" {
                    bail!("rule {}: {}", rule["name"], rule["lastError"]);
                }
            }
            return Ok(rules.len());
        }
        ensure!(
            start.elapsed() < EVALUATION,
            "rules were not evaluated within {EVALUATION:?}"
        );
        thread::sleep(Duration::from_millis(500));
    }
}

fn list(answer: &Value) -> Vec<&Value> {
    let groups = answer["groups"].as_array().into_iter().flatten();
    groups
        .filter_map(|group| group["rules"].as_array())
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_all_groups_are_listed() {
        let answer = serde_json::json!({"groups": [
            {"rules": [{"name": "a"}, {"name": "b"}]}, {"rules": []}, {"rules": [{"name": "c"}]},
        ]});
        let names: Vec<&Value> = list(&answer).iter().map(|rule| &rule["name"]).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
