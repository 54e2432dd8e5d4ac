//! One query of a panel, and how its PromQL is written.
//!
//! Two marks spare the dashboards the matchers that every selector needs: `%host` stands for those
//! of the chosen agents, `%vm` for those of the chosen VM as well.

use serde_json::{Value, json};

use super::variables::DATASOURCE;

/// What `%host` stands for.
const HOST: &str = r#"job=~"$job", instance=~"$instance""#;
/// What `%vm` stands for.
const VM: &str = r#"job=~"$job", instance=~"$instance", vm=~"$vm", id=~"$id""#;

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    /// The PromQL, with Grafana's variables.
    pub expr: String,
    /// `{{label}}` or words.
    pub legend: String,
    /// What is asked for.
    pub shape: Shape,
    /// Why it may have no data on a host in order.
    pub may_be_empty: Option<&'static str>,
    /// Why it shows counters as they are.
    pub bare_counters: Option<&'static str>,
}

/// What Prometheus is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Values over the time range.
    Range,
    /// The value at the end of the range.
    Instant,
    /// The same, with labels as columns.
    Table,
}

impl Query {
    /// Values over the time range.
    pub fn range(expr: impl AsRef<str>, legend: &str) -> Self {
        Self::new(expr.as_ref(), legend, Shape::Range)
    }

    /// The value at the end of the range.
    pub fn instant(expr: impl AsRef<str>) -> Self {
        Self::new(expr.as_ref(), "", Shape::Instant)
    }

    /// A column of a table.
    pub fn column(expr: impl AsRef<str>) -> Self {
        Self::new(expr.as_ref(), "", Shape::Table)
    }

    fn new(expr: &str, legend: &str, shape: Shape) -> Self {
        // Lines and indents are for the source.
        let expr = expr.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            expr: expr.replace("%host", HOST).replace("%vm", VM),
            legend: legend.to_owned(),
            shape,
            may_be_empty: None,
            bare_counters: None,
        }
    }

    /// Names the series.
    pub fn named(mut self, legend: &str) -> Self {
        legend.clone_into(&mut self.legend);
        self
    }

    /// It may have no data on a host in order, for this reason.
    pub fn may_be_empty(mut self, reason: &'static str) -> Self {
        self.may_be_empty = Some(reason);
        self
    }

    /// It shows counters as they are, not their rates, for this reason.
    pub fn bare_counters(mut self, reason: &'static str) -> Self {
        self.bare_counters = Some(reason);
        self
    }

    /// Grafana's form.
    pub fn json(&self, ref_id: &str) -> Value {
        let Self {
            expr,
            legend,
            shape,
            may_be_empty: _,
            bare_counters: _,
        } = self;
        let format = match shape {
            Shape::Table => "table",
            Shape::Range | Shape::Instant => "time_series",
        };
        let mut target = json!({
            "datasource": {"type": "prometheus", "uid": DATASOURCE},
            "editorMode": "code",
            "expr": expr,
            "format": format,
            "instant": *shape != Shape::Range,
            "range": *shape == Shape::Range,
            "refId": ref_id,
        });
        if !legend.is_empty() {
            target["legendFormat"] = json!(legend);
        }
        target
    }
}

/// How much a counter grew in the shown range. `increase()` alone misses the first value of a series
/// that was born in it, and with it the only trap of who trapped once. Born in it is what was not there
/// at its beginning, though the agent was scraped then, or what an agent has that started later. Such
/// a series may have ended before the range does: who was killed has none soon.
pub fn grown(counter: &str) -> String {
    let agent = "splitlock_build_info{%host} offset $__range \
                 or last_over_time(process_start_time_seconds{%host}[$__range]) > time() - $__range_s";
    format!(
        "(((last_over_time({counter}[$__range]) unless {counter} offset $__range) \
         and on (job, instance) ({agent})) or increase({counter}[$__range]))"
    )
}

/// For how long, in seconds, the kernels of the chosen hosts held offenders up in the shown range.
pub fn time_lost() -> Query {
    let sum = |family: &str| {
        format!(
            "(sum({}) or vector(0))",
            grown(&format!("{family}{{%host}}"))
        )
    };
    Query::instant(format!(
        "{} + {}",
        sum("splitlock_vm_delay_seconds_total"),
        sum("splitlock_process_delay_seconds_total")
    ))
    .bare_counters(BORN_IN_RANGE)
}

/// The reason that [`grown`] has for a bare counter.
pub const BORN_IN_RANGE: &str =
    "a series that was born in the shown range counts from 0, which increase() cannot see";

/// The `count` series of `sum by (by) (expr)` that are highest at the end of the shown range, so that
/// a chart keeps to the same ones from its left to its right.
pub fn highest_rates(count: u32, by: &str, counter: &str) -> String {
    format!(
        "sum by ({by}) (rate({counter}[$__rate_interval])) and on ({by}) \
         topk({count}, sum by ({by}) (increase({counter}[$__range] @ end())))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_matchers() {
        let query = Query::range("rate(a_total{%vm,\n   b=\"c\"}[$__rate_interval])", "{{b}}");
        assert_eq!(
            query.expr,
            r#"rate(a_total{job=~"$job", instance=~"$instance", vm=~"$vm", id=~"$id", b="c"}[$__rate_interval])"#
        );
    }

    #[test]
    fn only_a_column_is_a_table() {
        assert_eq!(Query::column("a").json("A")["format"], "table");
        let instant = Query::instant("a").json("A");
        assert_eq!(
            (&instant["instant"], &instant["range"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(Query::range("a", "b").json("B")["legendFormat"], "b");
    }
}
