//! What holds for every query: it parses, its selectors match job and instance, its rates are over
//! `$__rate_interval`, its counters are shown as rates, its metrics and labels exist.

use std::time::Duration;

use promql_parser::{
    label::MatchOp,
    parser::{self, Call, Expr, VectorSelector},
};
use serde_json::Value;

use super::{each_dashboard, labels::labels_of, list, text};
use crate::dashboards::{contract, query::Query};

/// No query has these by itself.
const RATE_INTERVAL: (&str, Duration) = ("123457s", Duration::from_secs(123_457));
const RANGE: &str = "7654321s";

/// What a query of a panel is parsed from: variables in matchers stay, durations are put in.
fn parsed(expr: &str) -> Result<Expr, String> {
    let expr = expr
        .replace("$__rate_interval", RATE_INTERVAL.0)
        .replace("$__range_s", RANGE.trim_end_matches('s'))
        .replace("$__range", RANGE);
    parser::parse(&expr)
}

/// Where a selector stands.
#[derive(Clone)]
struct Place {
    /// The function that it is the argument of.
    function: Option<&'static str>,
    /// The brackets behind it.
    range: Option<Duration>,
}

/// All selectors of an expression, each with its place.
fn selectors(expr: &Expr) -> Vec<(VectorSelector, Place)> {
    let mut found = vec![];
    collect(expr, None, &mut found);
    found
}

fn collect(expr: &Expr, function: Option<&'static str>, found: &mut Vec<(VectorSelector, Place)>) {
    let mut add = |selector: &VectorSelector, range| {
        found.push((selector.clone(), Place { function, range }));
    };
    match expr {
        Expr::VectorSelector(selector) => add(selector, None),
        Expr::MatrixSelector(matrix) => add(&matrix.vs, Some(matrix.range)),
        Expr::Call(Call { func, args }) => {
            for argument in &args.args {
                collect(argument, Some(func.name), found);
            }
        }
        Expr::Aggregate(aggregate) => {
            collect(&aggregate.expr, None, found);
            if let Some(parameter) = &aggregate.param {
                collect(parameter, None, found);
            }
        }
        Expr::Binary(binary) => {
            collect(&binary.lhs, None, found);
            collect(&binary.rhs, None, found);
        }
        Expr::Paren(paren) => collect(&paren.expr, None, found),
        Expr::Unary(unary) => collect(&unary.expr, None, found),
        Expr::Subquery(subquery) => collect(&subquery.expr, None, found),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
        Expr::Extension(_) => panic!("no query of a dashboard extends PromQL"),
    }
}

fn check_each(check: impl Fn(&Query, &Expr) -> Result<(), String>) {
    for (dashboard, _) in each_dashboard() {
        for panel in dashboard.panels() {
            for query in &panel.queries {
                let checked = parsed(&query.expr).and_then(|expr| check(query, &expr));
                if let Err(error) = checked {
                    let (uid, title) = (dashboard.uid, panel.title);
                    panic!("{uid}, {title}: {error}\n{}", query.expr);
                }
            }
        }
    }
}

fn has_matcher(selector: &VectorSelector, label: &str) -> Result<(), String> {
    let expected = format!("${label}");
    let matches = selector.matchers.matchers.iter().any(|matcher| {
        matcher.name == label && matches!(matcher.op, MatchOp::Re(_)) && matcher.value == expected
    });
    if matches {
        Ok(())
    } else {
        Err(format!(
            "{:?} has no {label}=~\"{expected}\"",
            selector.name
        ))
    }
}

fn matched(_: &Query, expr: &Expr) -> Result<(), String> {
    for (selector, _) in selectors(expr) {
        has_matcher(&selector, "job")?;
        has_matcher(&selector, "instance")?;
    }
    Ok(())
}

fn rated(_: &Query, expr: &Expr) -> Result<(), String> {
    for (selector, Place { function, range }) in selectors(expr) {
        let is_rate = matches!(function, Some("rate" | "irate"));
        if is_rate && range != Some(RATE_INTERVAL.1) {
            return Err(format!(
                "{:?} is not rated over $__rate_interval",
                selector.name
            ));
        }
    }
    Ok(())
}

fn counted(query: &Query, expr: &Expr) -> Result<(), String> {
    let mut bare = false;
    for (selector, Place { function, .. }) in selectors(expr) {
        let is_counter = selector
            .name
            .as_deref()
            .is_some_and(|name| name.ends_with("_total"));
        if !is_counter || matches!(function, Some("rate" | "irate" | "increase")) {
            continue;
        }
        bare = true;
        if query.bare_counters.is_none() {
            return Err(format!("{:?} is not in rate or increase", selector.name));
        }
    }
    if query.bare_counters.is_some() && !bare {
        return Err("it excuses a counter that it does not have".to_owned());
    }
    Ok(())
}

fn known(_: &Query, expr: &Expr) -> Result<(), String> {
    let families = contract::families();
    for (selector, _) in selectors(expr) {
        let name = selector.name.ok_or("a selector has no name")?;
        let labels = families
            .get(&name)
            .ok_or_else(|| format!("{name} is not in docs/metrics.md"))?;
        for matcher in &selector.matchers.matchers {
            if !labels.contains(&matcher.name) {
                return Err(format!("{name} has no label {}", matcher.name));
            }
        }
    }
    labels_of(expr, &families).map(drop)
}

#[test]
fn target_promql_rule() {
    check_each(|_, _| Ok(()));
    assert!(parsed("sum(rate(a{").is_err());
}

#[test]
fn target_job_rule_and_target_instance_rule() {
    check_each(matched);
    let query = Query::range("up{%host} + up{job=~\"$job\"}", "");
    assert!(matched(&query, &parsed(&query.expr).unwrap()).is_err());
}

#[test]
fn target_rate_interval_rule() {
    check_each(rated);
    let query = Query::range("rate(a_total[5m])", "");
    assert!(rated(&query, &parsed(&query.expr).unwrap()).is_err());
}

#[test]
fn target_counter_agg_rule() {
    check_each(counted);
    let query = Query::range("sum(a_total)", "");
    assert!(counted(&query, &parsed(&query.expr).unwrap()).is_err());
    let excused = query.bare_counters("a reason");
    assert!(counted(&excused, &parsed(&excused.expr).unwrap()).is_ok());
}

#[test]
fn metrics_and_labels_are_in_the_contract() {
    check_each(known);
    for wrong in [
        "splitlock_no_such_metric",
        "splitlock_host_traps_total{vm=\"a\"}",
        "sum by (vm) (splitlock_host_traps_total)",
        "sum by (origin) (sum by (trap) (splitlock_host_traps_total))",
        "sum by (trap) (splitlock_host_traps_total) and on (origin) splitlock_host_sees",
    ] {
        let query = Query::range(wrong, "");
        assert!(known(&query, &parsed(wrong).unwrap()).is_err(), "{wrong}");
    }
}

#[test]
fn legends_and_columns_show_labels_that_are_there() {
    let families = contract::families();
    for (dashboard, _) in each_dashboard() {
        for panel in dashboard.panels() {
            let mut of_panel = contract::Labels::new();
            for query in &panel.queries {
                let expr = parsed(&query.expr).unwrap();
                let labels = labels_of(&expr, &families).unwrap();
                for part in query.legend.split("{{").skip(1) {
                    let (label, _) = part.split_once("}}").unwrap();
                    let (uid, title) = (dashboard.uid, panel.title);
                    assert!(labels.contains(label), "{uid}, {title}: {label}");
                }
                of_panel.extend(labels);
            }
            for label in panel.label_columns() {
                assert!(of_panel.contains(label), "{}: {label}", panel.title);
            }
        }
    }
}

#[test]
fn template_label_promql_rule() {
    let families = contract::families();
    for (_, json) in each_dashboard() {
        for variable in list(&json, "/templating/list") {
            if variable["type"] != "query" {
                continue;
            }
            let Value::String(query) = &variable["query"]["query"] else {
                panic!("{variable}");
            };
            assert_eq!(variable["definition"], *query);
            let (selector, label) = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
                .unwrap_or_else(|| panic!("{query}"));
            let expr = parsed(selector).unwrap();
            let labels = labels_of(&expr, &families).unwrap();
            assert!(labels.contains(label), "{query}");
            assert_eq!(text(&variable["name"]), label);
        }
    }
}
