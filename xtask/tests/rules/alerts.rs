//! Each alert has what an operator and an Alertmanager need, and is tested both ways.

use std::collections::BTreeSet;

use super::{
    Test,
    files::{Rule, alerts, cases, rules},
    queries::words_after,
};

pub const TESTS: &[Test] = &[
    Test {
        name: "alerts::each_is_complete",
        needs: &[],
        run: each_is_complete,
    },
    Test {
        name: "alerts::each_is_seen_to_fire_and_not_to_fire",
        needs: &[],
        run: each_is_seen_to_fire_and_not_to_fire,
    },
    Test {
        name: "alerts::a_missing_threshold_is_noticed",
        needs: &[],
        run: a_missing_threshold_is_noticed,
    },
];

/// How links begin: see splitlock:link:base in settings.yaml.
fn base(label: &str) -> String {
    format!(
        r#"{{{{ with query "splitlock:link:base" }}}}{{{{ . | first | label "{label}" }}}}{{{{ end }}}}"#
    )
}

fn each_is_complete() {
    for (name, rule) in alerts() {
        assert!(name.starts_with("SplitLock"), "{name}");
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(
            matches!(severity, Some("critical" | "warning" | "info")),
            "{name}: severity {severity:?}"
        );
        let annotation = |key: &str| match rule.annotations.get(key) {
            Some(text) if !text.is_empty() => text.as_str(),
            _ => panic!("{name} has no {key}"),
        };
        assert!(annotation("summary").len() < 160, "{name}: a long summary");
        annotation("description");
        let runbook = format!("{}/{name}.md", base("runbooks"));
        assert_eq!(annotation("runbook_url"), runbook, "{name}");
        let dashboard = annotation("dashboard_url")
            .split_once("/d/")
            .unwrap_or_else(|| panic!("{name}: a dashboard_url without /d/"))
            .1;
        assert!(
            annotation("dashboard_url").starts_with(&base("dashboards")),
            "{name}"
        );
        let uid: String = dashboard
            .chars()
            .take_while(|c| !"?{".contains(*c))
            .collect();
        let uids = ["splitlock-fleet", "splitlock-host", "splitlock-vm"];
        assert!(uids.contains(&uid.as_str()), "{name}: {uid}");
    }
}

fn each_is_seen_to_fire_and_not_to_fire() {
    let names: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    let mut fired = BTreeSet::new();
    for test in cases().into_iter().flat_map(|case| case.alert_rule_test) {
        for alert in &test.exp_alerts {
            fired.insert((
                test.alertname.clone(),
                alert.exp_labels.get("severity").cloned(),
            ));
        }
        let is_silent = test.exp_alerts.is_empty();
        if is_silent { &mut silent } else { &mut firing }.insert(test.alertname);
    }
    assert_eq!(firing, names, "tests in which it fires");
    assert_eq!(silent, names, "tests in which it does not");
    for (name, rule) in alerts() {
        let severity = rule.labels.get("severity").cloned();
        assert!(
            fired.contains(&(name.clone(), severity.clone())),
            "{name} never fires as {severity:?}"
        );
    }
}

/// A comparison with a series that is not there, or there twice, is silent.
fn a_missing_threshold_is_noticed() {
    let recorded: Vec<Rule> = rules()
        .into_iter()
        .filter(|rule| {
            let name = rule.record.as_deref().unwrap_or_default();
            name.starts_with("splitlock:threshold:")
        })
        .collect();
    let alerts = alerts();
    let (_, watch) = alerts
        .iter()
        .find(|(name, _)| name == "SplitLockRulesIncomplete")
        .expect("it is an alert");
    for rule in &recorded {
        let threshold = rule.record.as_deref().expect("it is recorded");
        let labels: Vec<&str> = rule.labels.keys().map(String::as_str).collect();
        let matchers: Vec<String> = (rule.labels.iter())
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let watched = if labels.is_empty() {
            [
                format!("absent({threshold})"),
                format!("count({threshold}) > 1"),
            ]
        } else {
            let (labels, matchers) = (labels.join(", "), matchers.join(", "));
            [
                format!("absent(max({threshold}{{{matchers}}}))"),
                format!("count(count by ({labels}) ({threshold}) > 1)"),
            ]
        };
        for query in watched {
            assert!(watch.expr.contains(&query), "nobody asks {query}");
        }
    }
    let mut seen = 0;
    for (name, rule) in &alerts {
        for threshold in words_after(&rule.expr, "splitlock:threshold:") {
            let threshold = format!("splitlock:threshold:{threshold}");
            let is_recorded = |rule: &Rule| rule.record.as_ref() == Some(&threshold);
            assert!(
                recorded.iter().any(is_recorded),
                "{name}: nothing records {threshold}"
            );
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} uses of thresholds");
}
