//! Every query of every panel, as Prometheus gets it from Grafana.

use serde::Serialize;

use super::query::Shape;

/// What is chosen at the top of a dashboard, and what Grafana works out from the time range.
#[derive(Clone, Debug)]
pub struct Choice {
    /// `$job`, a regular expression as all of these.
    pub job: String,
    /// `$instance`
    pub instance: String,
    /// `$vm`
    pub vm: String,
    /// `$id`
    pub id: String,
    /// `$__range`, in seconds: `3600s`
    pub range: String,
    /// `$__rate_interval`
    pub rate_interval: String,
}

impl Default for Choice {
    /// All of everything, over an hour that is scraped every 15 seconds.
    fn default() -> Self {
        let all = || ".+".to_owned();
        Self {
            job: all(),
            instance: all(),
            vm: all(),
            id: all(),
            range: "3600s".to_owned(),
            rate_interval: "1m".to_owned(),
        }
    }
}

/// One query of a panel.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The dashboard's uid.
    pub dashboard: &'static str,
    /// The panel's title.
    pub panel: &'static str,
    /// PromQL without variables.
    pub expr: String,
    /// Whether it is asked over the time range, not for its end.
    pub over_range: bool,
    /// Whether its answer is a column of a table.
    pub is_column: bool,
    /// Why it may have no data on a host in order.
    pub may_be_empty: Option<&'static str>,
}

/// All queries of all dashboards.
pub fn queries(choice: &Choice) -> Vec<Asked> {
    let mut asked = vec![];
    for dashboard in super::all() {
        for panel in dashboard.panels() {
            asked.extend(panel.queries.iter().map(|query| Asked {
                dashboard: dashboard.uid,
                panel: panel.title,
                expr: choice.fill(&query.expr),
                over_range: query.shape == Shape::Range,
                is_column: query.shape == Shape::Table,
                may_be_empty: query.may_be_empty,
            }));
        }
    }
    asked
}

impl Choice {
    /// Puts what is chosen in the place of the variables.
    pub fn fill(&self, expr: &str) -> String {
        let Self {
            job,
            instance,
            vm,
            id,
            range,
            rate_interval,
        } = self;
        expr.replace("$__rate_interval", rate_interval)
            .replace("$__range_s", range.trim_end_matches('s'))
            .replace("$__range", range)
            .replace("$job", job)
            .replace("$instance", instance)
            .replace("$vm", vm)
            .replace("$id", id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_is_left() {
        let queries = queries(&Choice::default());
        assert!(queries.len() > 80, "{}", queries.len());
        for Asked { panel, expr, .. } in queries {
            assert!(!expr.contains(['$', '%']), "{panel}: {expr}");
        }
    }
}
