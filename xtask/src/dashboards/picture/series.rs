//! The series of a panel: Prometheus's answers to its queries, named by their legends.

use std::collections::BTreeMap;

use serde_json::Value;

/// One series.
#[derive(Clone, Debug)]
pub struct Series {
    /// Which query it answers.
    pub ref_id: String,
    /// By its legend.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970, and values.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// An element of Prometheus's `result`.
    pub fn new(target: &Value, answer: &Value) -> Self {
        let labels: BTreeMap<String, String> = answer["metric"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != "__name__")
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        let point = |pair: &Value| {
            let value = pair[1].as_str()?.parse::<f64>().ok()?;
            Some((pair[0].as_f64()?, value))
        };
        let points = match answer["values"].as_array() {
            Some(values) => values.iter().filter_map(point).collect(),
            None => point(&answer["value"]).into_iter().collect(),
        };
        let legend = target["legendFormat"].as_str().unwrap_or_default();
        let name = labels
            .iter()
            .fold(legend.to_owned(), |name, (label, value)| {
                name.replace(&format!("{{{{{label}}}}}"), value)
            });
        Self {
            ref_id: target["refId"].as_str().unwrap_or_default().to_owned(),
            name,
            labels,
            points,
        }
    }

    /// The newest value.
    pub fn last(&self) -> Option<f64> {
        self.finite().last()
    }

    /// The highest value.
    pub fn highest(&self) -> f64 {
        self.finite().fold(0.0, f64::max)
    }

    /// The mean of what is there.
    pub fn mean(&self) -> f64 {
        let count = self.finite().count().max(1);
        self.finite().sum::<f64>() / count as f64
    }

    fn finite(&self) -> impl Iterator<Item = f64> {
        self.points
            .iter()
            .map(|(_, value)| *value)
            .filter(|value| value.is_finite())
    }
}

/// Stretches without a gap: points that are at most `step` apart.
pub fn stretches<T>(points: &[T], step: f64, time: impl Fn(&T) -> f64) -> Vec<&[T]> {
    points
        .chunk_by(|one, next| time(next) - time(one) <= step * 1.5)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_series_is_named_by_its_legend() {
        let target = json!({"refId": "B", "legendFormat": "{{instance}} {{kind}}"});
        let answer = json!({
            "metric": {"__name__": "a", "instance": "hv1", "kind": "vm"},
            "values": [[60, "1"], [120, "NaN"], [240, "3"]],
        });
        let series = Series::new(&target, &answer);
        assert_eq!(
            (series.name.as_str(), series.ref_id.as_str()),
            ("hv1 vm", "B")
        );
        assert_eq!(
            (series.last(), series.mean(), series.highest()),
            (Some(3.0), 2.0, 3.0)
        );
        let stretches = stretches(&series.points, 60.0, |point| point.0);
        assert_eq!(
            stretches.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [2, 1]
        );
    }
}
