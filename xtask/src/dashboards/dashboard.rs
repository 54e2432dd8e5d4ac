//! A dashboard: rows of panels that flow from left to right.

use serde_json::{Value, json};

use super::panel::Panel;

/// Grafana's grid.
const COLUMNS: u32 = 24;
/// That of Grafana 10.4 and 11; newer ones take it and rewrite it when they load it.
const SCHEMA_VERSION: u32 = 39;

/// One dashboard.
pub struct Dashboard {
    /// Stays for ever: links and bookmarks name it.
    pub uid: &'static str,
    /// Its name, unique in the folder.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// What is shown unless somebody chooses.
    pub from: &'static str,
    /// The choices at its top.
    pub variables: Vec<Value>,
    /// The ways to the others.
    pub links: Vec<Value>,
    /// Its panels.
    pub rows: Vec<Row>,
}

/// One row, below its headline.
pub struct Row {
    /// The headline.
    pub title: &'static str,
    /// Its panels; what does not fit beside the others goes below them.
    pub panels: Vec<Panel>,
}

impl Dashboard {
    /// All panels.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    /// Grafana's form.
    pub fn json(&self) -> Value {
        let Self {
            uid,
            title,
            description,
            from,
            variables,
            links,
            rows,
        } = self;
        json!({
            "annotations": {"list": [{
                "builtIn": 1,
                "datasource": {"type": "grafana", "uid": "-- Grafana --"},
                "enable": true,
                "hide": true,
                "iconColor": "rgba(0, 211, 255, 1)",
                "name": "Annotations & Alerts",
                "type": "dashboard",
            }]},
            "description": description,
            // What is changed there would be lost with the next import.
            "editable": false,
            "fiscalYearStartMonth": 0,
            // One crosshair for all panels.
            "graphTooltip": 1,
            "id": null,
            "links": links,
            "panels": layout(rows),
            "refresh": "1m",
            "schemaVersion": SCHEMA_VERSION,
            "tags": ["splitlock"],
            "templating": {"list": variables},
            "time": {"from": from, "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "title": title,
            "uid": uid,
            "version": 1,
            "weekStart": "",
        })
    }
}

fn layout(rows: &[Row]) -> Vec<Value> {
    let mut panels = vec![];
    let mut id = 0;
    let mut next_id = || {
        id += 1;
        id
    };
    let mut y = 0;
    for Row { title, panels: row } in rows {
        panels.push(json!({
            "collapsed": false,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            "id": next_id(),
            "panels": [],
            "title": title,
            "type": "row",
        }));
        y += 1;
        let (mut x, mut height) = (0, 0);
        for panel in row {
            let (w, h) = panel.size;
            if x + w > COLUMNS {
                y += height;
                (x, height) = (0, 0);
            }
            let mut shown = panel.json();
            shown["id"] = json!(next_id());
            shown["gridPos"] = json!({"h": h, "w": w, "x": x, "y": y});
            panels.push(shown);
            x += w;
            height = height.max(h);
        }
        y += height;
    }
    panels
}
