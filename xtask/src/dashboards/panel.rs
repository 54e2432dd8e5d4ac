//! The kinds of panels. Each begins with its title and says what it shows.

use serde_json::{Value, json};

use super::{
    colour::{self, Palette},
    query::Query,
    table::Table,
    variables::DATASOURCE,
};

/// One panel.
pub struct Panel {
    /// What it shows, in a few words.
    pub title: &'static str,
    /// How to read it.
    pub description: &'static str,
    /// Width and height on the grid.
    pub size: (u32, u32),
    /// What it asks.
    pub queries: Vec<Query>,
    unit: &'static str,
    decimals: Option<u32>,
    minimum: Option<u32>,
    maximum: Option<u32>,
    thresholds: Value,
    mappings: Value,
    overrides: Vec<Value>,
    links: Vec<Value>,
    nothing: Option<&'static str>,
    kind: Kind,
}

enum Kind {
    Stat { text: Text },
    Lines { stacked: bool },
    Bars,
    States,
    Table(Table),
}

/// What a stat writes.
enum Text {
    Value,
    Name,
}

impl Panel {
    /// One number each.
    pub fn stat(title: &'static str, description: &'static str, unit: &'static str) -> Self {
        Self::new(title, description, unit, Kind::Stat { text: Text::Value }).size(3, 4)
    }

    /// One name each, that of the series.
    pub fn name(title: &'static str, description: &'static str) -> Self {
        let kind = Kind::Stat { text: Text::Name };
        Self::new(title, description, super::unit::NAME, kind).size(3, 4)
    }

    /// Lines over time, from 0.
    pub fn lines(title: &'static str, description: &'static str, unit: &'static str) -> Self {
        Self::new(title, description, unit, Kind::Lines { stacked: false }).size(12, 8)
    }

    /// Areas over time that add up.
    pub fn stack(title: &'static str, description: &'static str, unit: &'static str) -> Self {
        Self::new(title, description, unit, Kind::Lines { stacked: true }).size(12, 8)
    }

    /// A bar for each series, as it is now.
    pub fn bars(title: &'static str, description: &'static str, unit: &'static str) -> Self {
        Self::new(title, description, unit, Kind::Bars).size(8, 8)
    }

    /// What was when, one lane for each series.
    pub fn states(title: &'static str, description: &'static str) -> Self {
        Self::new(title, description, super::unit::NAME, Kind::States).size(12, 8)
    }

    /// Rows and columns.
    pub fn table(title: &'static str, description: &'static str, table: Table) -> Self {
        let mut panel = Self::new(title, description, super::unit::COUNT, Kind::Table(table));
        if let Kind::Table(table) = &panel.kind {
            panel.overrides = table.overrides();
            panel.queries = table.queries();
        }
        panel.minimum = None;
        panel.size(24, 9)
    }

    fn new(title: &'static str, description: &'static str, unit: &'static str, kind: Kind) -> Self {
        Self {
            title,
            description,
            size: (0, 0),
            queries: vec![],
            unit,
            decimals: None,
            minimum: Some(0),
            maximum: None,
            thresholds: colour::thresholds(colour::PLAIN, &[]),
            mappings: json!([]),
            overrides: vec![],
            links: vec![],
            nothing: None,
            kind,
        }
    }

    /// Width and height on the grid of 24 columns.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// Adds a query.
    pub fn query(mut self, query: Query) -> Self {
        self.queries.push(query);
        self
    }

    /// Digits after the point.
    pub fn decimals(mut self, decimals: u32) -> Self {
        self.decimals = Some(decimals);
        self
    }

    /// Where the scale ends.
    pub fn maximum(mut self, maximum: u32) -> Self {
        self.maximum = Some(maximum);
        self
    }

    /// Good at 0, of this colour from 1 on.
    pub fn zero_or(self, colour: &str) -> Self {
        self.steps(colour::GOOD, &[(1.0, colour)])
    }

    /// Colours by value.
    pub fn steps(mut self, below: &str, steps: &[(f64, &str)]) -> Self {
        self.thresholds = colour::thresholds(below, steps);
        self
    }

    /// Series that are named by a value of this label have its colours.
    pub fn coloured_by(mut self, palette: &Palette) -> Self {
        self.overrides.extend(palette.overrides());
        self
    }

    /// A series has this colour.
    pub fn coloured(mut self, series: &str, colour: &str) -> Self {
        self.overrides.push(colour::fixed(series, colour));
        self
    }

    /// Values are shown as words.
    pub fn mapped(mut self, mappings: Value) -> Self {
        self.mappings = mappings;
        self
    }

    /// What is written where a query has no answer.
    pub fn nothing(mut self, text: &'static str) -> Self {
        self.nothing = Some(text);
        self
    }

    /// A click on a series leads there.
    pub fn link(mut self, link: Value) -> Self {
        self.links.push(link);
        self
    }

    /// The labels that a table shows.
    #[cfg(test)]
    pub fn label_columns(&self) -> Vec<&'static str> {
        match &self.kind {
            Kind::Table(table) => table.label_names(),
            _ => vec![],
        }
    }

    /// Grafana's form, without id and place.
    pub fn json(&self) -> Value {
        let targets: Vec<Value> = self
            .queries
            .iter()
            .enumerate()
            .map(|(index, query)| query.json(&ref_id(index)))
            .collect();
        let mut panel = json!({
            "datasource": {"type": "prometheus", "uid": DATASOURCE},
            "description": self.description,
            "fieldConfig": {"defaults": self.defaults(), "overrides": self.overrides},
            "options": self.options(),
            "targets": targets,
            "title": self.title,
            "type": self.type_name(),
        });
        if let Kind::Table(table) = &self.kind {
            panel["transformations"] = table.transformations();
        }
        panel
    }

    fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Stat { .. } => "stat",
            Kind::Lines { .. } => "timeseries",
            Kind::Bars => "bargauge",
            Kind::States => "state-timeline",
            Kind::Table(_) => "table",
        }
    }

    fn defaults(&self) -> Value {
        let colour = match self.kind {
            Kind::Stat { .. } | Kind::Bars | Kind::Table(_) => json!({"mode": "thresholds"}),
            Kind::Lines { .. } | Kind::States => json!({"mode": "palette-classic"}),
        };
        let mut defaults = json!({
            "color": colour,
            "custom": self.custom(),
            "mappings": self.mappings,
            "thresholds": self.thresholds,
            "unit": self.unit,
        });
        let numbers = [
            ("decimals", self.decimals),
            ("min", self.minimum),
            ("max", self.maximum),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                defaults[key] = json!(number);
            }
        }
        if let Some(text) = self.nothing {
            defaults["noValue"] = json!(text);
        }
        if !self.links.is_empty() {
            defaults["links"] = json!(self.links);
        }
        defaults
    }

    fn custom(&self) -> Value {
        match self.kind {
            Kind::Stat { .. } | Kind::Bars => json!({}),
            Kind::Lines { stacked } => json!({
                "axisPlacement": "auto",
                "drawStyle": "line",
                "fillOpacity": if stacked { 40 } else { 8 },
                "gradientMode": "none",
                "lineInterpolation": "linear",
                "lineWidth": 1,
                "showPoints": "auto",
                "spanNulls": false,
                "stacking": {"group": "A", "mode": if stacked { "normal" } else { "none" }},
            }),
            Kind::States => json!({"fillOpacity": 70, "lineWidth": 0}),
            Kind::Table(_) => json!({
                "align": "auto",
                "cellOptions": {"type": "auto"},
                "filterable": true,
                "inspect": false,
            }),
        }
    }

    fn options(&self) -> Value {
        let calculated = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
        match &self.kind {
            Kind::Stat { text } => json!({
                "colorMode": "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "orientation": "auto",
                "reduceOptions": calculated,
                "textMode": match text { Text::Value => "auto", Text::Name => "name" },
                "showPercentChange": false,
                "wideLayout": true,
            }),
            Kind::Lines { .. } => json!({
                "legend": {
                    "calcs": ["mean", "max", "lastNotNull"],
                    "displayMode": "table",
                    "placement": "bottom",
                    "showLegend": true,
                    "sortBy": "Mean",
                    "sortDesc": true,
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::Bars => json!({
                "displayMode": "basic",
                "minVizHeight": 16,
                "minVizWidth": 8,
                "namePlacement": "auto",
                "orientation": "horizontal",
                "reduceOptions": calculated,
                "showUnfilled": true,
                "sizing": "auto",
                "valueMode": "color",
            }),
            Kind::States => json!({
                "alignValue": "left",
                "legend": {
                    "calcs": [],
                    "displayMode": "list",
                    "placement": "bottom",
                    "showLegend": false,
                },
                "mergeValues": true,
                "rowHeight": 0.8,
                "showValue": "never",
                "tooltip": {"mode": "single", "sort": "none"},
            }),
            Kind::Table(table) => table.options(),
        }
    }
}

/// `A`, `B`, …
pub fn ref_id(index: usize) -> String {
    let letter = u8::try_from(index).ok().filter(|index| *index < 26);
    let letter = letter.expect("no panel has more queries than there are letters");
    char::from(b'A' + letter).to_string()
}
