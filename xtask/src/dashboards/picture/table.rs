//! Rows of labels and values, merged and ordered as the panel's transformations say.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Window,
    canvas::{Anchor, Area, Canvas, FAINT, GRID, Ink},
    field::{Field, Shown},
    series::Series,
};

const LINE: f64 = 24.0;

/// One subject: its labels, and its values by Grafana's names of the queries' fields.
#[derive(Default)]
struct Row {
    labels: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

/// Draws as many rows as there is room for.
pub fn draw(canvas: &mut Canvas, panel: &Value, series: &[Series], area: Area, window: Window) {
    let mut rows = merged(panel, series);
    sort(panel, &mut rows);
    let names = columns(panel, &rows);
    let fields: Vec<Field<'_>> = names.iter().map(|name| Field::new(panel, name)).collect();
    let widths = widths(&fields, area.width);
    let mut left = area.left;
    let lines = (area.height / LINE).floor() as usize - 1;
    for ((name, field), width) in names.iter().zip(&fields).zip(widths) {
        let is_number = name.starts_with("Value");
        let (x, anchor) = if is_number {
            (left + width - 10.0, Anchor::End)
        } else {
            (left + 2.0, Anchor::Start)
        };
        let (base, room) = (area.top + 15.0, width - 16.0);
        let head = Ink::label(12.0, FAINT).bold();
        canvas.text((x, base), anchor, head, room, field.display_name());
        for (place, row) in rows.iter().take(lines).enumerate() {
            let base = base + LINE * (place + 1) as f64;
            if let Some(Shown { text, colour }) = cell(row, name, field, window) {
                canvas.text((x, base), anchor, Ink::data(13.0, colour), room, &text);
            }
        }
        left += width;
    }
    for place in 0..rows.len().min(lines) {
        let y = area.top + LINE * (place + 1) as f64 - 2.0;
        canvas.rule((area.left, y), (area.right(), y), GRID);
    }
}

fn cell(row: &Row, name: &str, field: &Field<'_>, window: Window) -> Option<Shown> {
    match row.labels.get(name) {
        Some(label) => Some(field.label(label)),
        None => {
            let value = row.values.get(name)?;
            Some(field.value(*value, window.end))
        }
    }
}

/// Answers about the same subject become one row.
fn merged(panel: &Value, series: &[Series]) -> Vec<Row> {
    let answered = |target: &&Value| series.iter().any(|one| target["refId"] == one.ref_id);
    let targets = panel["targets"].as_array();
    let alone = targets.into_iter().flatten().filter(answered).count() == 1;
    let mut rows: Vec<Row> = vec![];
    for one in series {
        let Some(value) = one.last() else { continue };
        let field = if alone {
            "Value".to_owned()
        } else {
            format!("Value #{}", one.ref_id)
        };
        let mut found = false;
        for row in &mut rows {
            let agrees = |(label, value): (&String, &String)| {
                row.labels.get(label).is_none_or(|there| there == value)
            };
            if !row.values.contains_key(&field) && one.labels.iter().all(agrees) {
                row.labels.extend(one.labels.clone());
                row.values.insert(field.clone(), value);
                found = true;
            }
        }
        if !found {
            rows.push(Row {
                labels: one.labels.clone(),
                values: BTreeMap::from([(field, value)]),
            });
        }
    }
    rows
}

fn sort(panel: &Value, rows: &mut [Row]) {
    let Some(by) = panel["options"]["sortBy"][0]["displayName"].as_str() else {
        return;
    };
    let key = |row: &Row| {
        let named = |name: &&String| Field::new(panel, name).display_name() == by;
        let name = row.values.keys().find(named);
        name.map_or(f64::NEG_INFINITY, |name| row.values[name])
    };
    rows.sort_by(|one, other| key(other).total_cmp(&key(one)));
}

/// The fields that are shown, in their order; one that the panel does not name comes last.
fn columns(panel: &Value, rows: &[Row]) -> Vec<String> {
    let organize = &panel["transformations"][1]["options"];
    let there = |name: &String| {
        rows.iter()
            .any(|row| row.labels.contains_key(name) || row.values.contains_key(name))
    };
    let order = organize["indexByName"].as_object().expect("an order");
    let mut named: Vec<(u64, String)> = order
        .iter()
        .map(|(name, place)| (place.as_u64().unwrap_or(0), name.clone()))
        .filter(|(_, name)| there(name))
        .collect();
    named.sort();
    let mut names: Vec<String> = named.into_iter().map(|(_, name)| name).collect();
    for row in rows {
        for name in row.labels.keys().chain(row.values.keys()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names.retain(|name| organize["excludeByName"][name] != true);
    names
}

/// Given widths are kept while there is room; the others share what is left.
fn widths(fields: &[Field<'_>], whole: f64) -> Vec<f64> {
    const LEAST: f64 = 90.0;
    let given = |field: &Field<'_>| field.option("custom.width").and_then(Value::as_f64);
    let taken: f64 = fields.iter().filter_map(given).sum();
    let others = fields.iter().filter(|field| given(field).is_none()).count();
    let share = ((whole - taken) / others.max(1) as f64).max(LEAST);
    let wanted: Vec<f64> = fields
        .iter()
        .map(|field| given(field).unwrap_or(share))
        .collect();
    let squeeze = (whole / wanted.iter().sum::<f64>()).min(1.0);
    wanted.iter().map(|width| width * squeeze).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_about_one_subject_are_one_row() {
        let panel = json!({
            "targets": [{"refId": "A"}, {"refId": "B"}],
            "fieldConfig": {"defaults": {}, "overrides": []},
            "transformations": [{}, {"options": {
                "indexByName": {"mode": 1, "instance": 0, "Value #B": 3, "Value #A": 2},
                "excludeByName": {"Value #A": true},
            }}],
        });
        let of = |ref_id: &str, labels: Value, value: &str| {
            let answer = json!({"metric": labels, "value": [0, value]});
            Series::new(&json!({"refId": ref_id}), &answer)
        };
        let series = [
            of("A", json!({"instance": "a", "mode": "warn"}), "1"),
            of("A", json!({"instance": "b", "mode": "off"}), "1"),
            of("B", json!({"instance": "b"}), "7"),
        ];
        let rows = merged(&panel, &series);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].values["Value #B"], 7.0);
        assert_eq!(columns(&panel, &rows), ["instance", "mode", "Value #B"]);
    }
}
