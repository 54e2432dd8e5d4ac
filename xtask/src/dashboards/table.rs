//! Tables: labels and values of several queries in one row for each subject.

use serde_json::{Value, json};

use super::{panel::ref_id, query::Query, unit};

/// A table under construction: first the labels, then the values.
#[derive(Default)]
pub struct Table {
    labels: Vec<Column>,
    values: Vec<(Column, Query)>,
    sorted_by: Option<&'static str>,
}

/// How a column looks.
pub struct Column {
    /// The label, for one that shows a label.
    label: &'static str,
    name: &'static str,
    unit: Option<&'static str>,
    width: Option<u32>,
    links: Vec<Value>,
    mappings: Option<Value>,
    thresholds: Option<Value>,
    hidden: bool,
}

impl Column {
    /// One that shows a label.
    pub fn label(label: &'static str, name: &'static str) -> Self {
        Self {
            label,
            name,
            unit: Some(unit::TEXT),
            width: None,
            links: vec![],
            mappings: None,
            thresholds: None,
            hidden: false,
        }
    }

    /// One that shows the values of a query.
    pub fn value(name: &'static str, unit: &'static str) -> Self {
        Self {
            unit: Some(unit),
            ..Self::label("", name)
        }
    }

    /// Its width in pixels.
    pub fn width(mut self, width: u32) -> Self {
        self.width = Some(width);
        self
    }

    /// A click leads there.
    pub fn link(mut self, link: Value) -> Self {
        self.links.push(link);
        self
    }

    /// Words and colours for values.
    pub fn mapped(mut self, mappings: Value) -> Self {
        self.mappings = Some(mappings);
        self
    }

    /// Colours by value.
    pub fn steps(mut self, below: &str, steps: &[(f64, &str)]) -> Self {
        self.thresholds = Some(super::colour::thresholds(below, steps));
        self
    }

    /// One whose query is there for its labels only.
    pub fn unseen() -> Self {
        Self {
            hidden: true,
            unit: None,
            ..Self::label("", "")
        }
    }

    fn properties(&self) -> Vec<Value> {
        let property = |id: &str, value: Value| json!({"id": id, "value": value});
        let mut properties = vec![];
        if !self.name.is_empty() {
            properties.push(property("displayName", json!(self.name)));
        }
        if let Some(unit) = self.unit {
            properties.push(property("unit", json!(unit)));
        }
        if let Some(width) = self.width {
            properties.push(property("custom.width", json!(width)));
        }
        if !self.links.is_empty() {
            properties.push(property("links", json!(self.links)));
        }
        if let Some(mappings) = &self.mappings {
            properties.push(property("mappings", mappings.clone()));
        }
        if let Some(thresholds) = &self.thresholds {
            properties.push(property("thresholds", thresholds.clone()));
        }
        if self.mappings.is_some() || self.thresholds.is_some() {
            let text = json!({"type": "color-text"});
            properties.push(property("custom.cellOptions", text));
        }
        properties
    }
}

impl Table {
    /// Adds a column for a label.
    pub fn label(mut self, column: Column) -> Self {
        self.labels.push(column);
        self
    }

    /// Adds a column for the values of a query.
    pub fn value(mut self, column: Column, query: Query) -> Self {
        self.values.push((column, query));
        self
    }

    /// The highest first.
    pub fn sorted_by(mut self, name: &'static str) -> Self {
        self.sorted_by = Some(name);
        self
    }

    /// What it asks.
    pub fn queries(&self) -> Vec<Query> {
        self.values.iter().map(|(_, query)| query.clone()).collect()
    }

    /// The labels that it shows.
    #[cfg(test)]
    pub fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|column| column.label).collect()
    }

    /// Names, units and links of the columns.
    pub fn overrides(&self) -> Vec<Value> {
        let labels = self.labels.iter().map(|column| {
            let matcher = json!({"id": "byName", "options": column.label});
            json!({"matcher": matcher, "properties": column.properties()})
        });
        let values = self.values.iter().enumerate().map(|(index, (column, _))| {
            let fields = fields(index).join("|");
            let matcher = json!({"id": "byRegexp", "options": format!("/^({fields})$/")});
            json!({"matcher": matcher, "properties": column.properties()})
        });
        labels
            .chain(values)
            .filter(|column| column["properties"] != json!([]))
            .collect()
    }

    /// One row for each subject, and the columns in their order.
    pub fn transformations(&self) -> Value {
        let mut order = serde_json::Map::new();
        let mut left_out = serde_json::Map::new();
        left_out.insert("Time".to_owned(), json!(true));
        let labels = self.labels.iter();
        let labels = labels.map(|column| (vec![column.label.to_owned()], column));
        let values = self.values.iter().enumerate();
        let values = values.map(|(index, (column, _))| (fields(index), column));
        for (place, (fields, column)) in labels.chain(values).enumerate() {
            for field in fields {
                order.insert(field.clone(), json!(place));
                if column.hidden {
                    left_out.insert(field, json!(true));
                }
            }
        }
        json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {
                "excludeByName": left_out,
                "indexByName": order,
                "renameByName": {},
            }},
        ])
    }

    /// Looks of the whole.
    pub fn options(&self) -> Value {
        let sorted: Vec<Value> = self
            .sorted_by
            .iter()
            .map(|name| json!({"displayName": name, "desc": true}))
            .collect();
        json!({
            "cellHeight": "sm",
            "footer": {
                "countRows": false,
                "enablePagination": true,
                "fields": "",
                "reducer": ["sum"],
                "show": false,
            },
            "showHeader": true,
            "sortBy": sorted,
        })
    }
}

/// Grafana's names of a query's values. If only one of the queries has an answer its name is without
/// the letter; here that is the first.
fn fields(index: usize) -> Vec<String> {
    let with_letter = format!("Value #{}", ref_id(index));
    if index == 0 {
        vec!["Value".to_owned(), with_letter]
    } else {
        vec![with_letter]
    }
}
