//! What holds for every dashboard: the rules of Grafana's dashboard-linter, and the project's own.
//!
//! Each test is named after its rule there, where it has one
//! (<https://github.com/grafana/dashboard-linter/blob/main/docs/index.md>). That program's rule for
//! LogQL has no counterpart: nothing here asks Loki.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{all, colour, dashboard::Dashboard, links, unit, variables::DATASOURCE};

mod labels;
mod promql;

fn each_dashboard() -> Vec<(Dashboard, Value)> {
    let dashboards = all();
    dashboards
        .into_iter()
        .map(|dashboard| {
            let json = dashboard.json();
            (dashboard, json)
        })
        .collect()
}

fn list<'a>(json: &'a Value, pointer: &str) -> &'a [Value] {
    json.pointer(pointer)
        .and_then(Value::as_array)
        .unwrap_or_else(|| panic!("no list {pointer}"))
}

/// Panels that show data, with what names them in a failure.
fn each_panel(json: &Value) -> Vec<(String, &Value)> {
    list(json, "/panels")
        .iter()
        .filter(|panel| panel["type"] != "row")
        .map(|panel| (format!("{} / {}", json["title"], panel["title"]), panel))
        .collect()
}

fn variable<'a>(json: &'a Value, name: &str) -> &'a Value {
    list(json, "/templating/list")
        .iter()
        .find(|variable| variable["name"] == name)
        .unwrap_or_else(|| panic!("{} has no variable {name}", json["title"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn template_datasource_rule() {
    for (_, json) in each_dashboard() {
        let of_type: Vec<&Value> = list(&json, "/templating/list")
            .iter()
            .filter(|variable| variable["type"] == "datasource")
            .collect();
        assert_eq!(of_type.len(), 1, "{}", json["title"]);
        assert_eq!(of_type[0]["name"], "datasource");
        assert_eq!(of_type[0]["label"], "Data source");
        assert_eq!(of_type[0]["query"], "prometheus");
    }
}

#[test]
fn template_job_rule_and_template_instance_rule() {
    for (_, json) in each_dashboard() {
        for (name, label) in [("job", "Job"), ("instance", "Instance")] {
            let variable = variable(&json, name);
            assert_eq!(variable["label"], label);
            assert_eq!(variable["type"], "query");
            assert_eq!(variable["multi"], true);
            assert_eq!(variable["allValue"], ".+");
            assert_eq!(variable["datasource"]["uid"], DATASOURCE);
        }
        assert_eq!(variable(&json, "instance")["includeAll"], true);
        assert_eq!(variable(&json, "job")["includeAll"], false);
    }
}

#[test]
fn template_on_time_change_reload() {
    for (_, json) in each_dashboard() {
        for variable in list(&json, "/templating/list") {
            if variable["type"] == "query" {
                assert_eq!(variable["refresh"], 2, "{}", variable["name"]);
            }
        }
    }
}

#[test]
fn uneditable_dashboard() {
    for (_, json) in each_dashboard() {
        assert_eq!(json["editable"], false);
    }
}

#[test]
fn panel_datasource_rule() {
    let templated = json!({"type": "prometheus", "uid": DATASOURCE});
    for (_, json) in each_dashboard() {
        for (panel, shown) in each_panel(&json) {
            assert_eq!(shown["datasource"], templated, "{panel}");
            for target in list(shown, "/targets") {
                assert_eq!(target["datasource"], templated, "{panel}");
            }
        }
    }
}

#[test]
fn panel_title_description_rule() {
    for (_, json) in each_dashboard() {
        let mut titles = BTreeSet::new();
        for (panel, shown) in each_panel(&json) {
            assert!(!text(&shown["title"]).is_empty());
            let description = text(&shown["description"]);
            assert!(description.ends_with('.'), "{panel}: {description}");
            assert!(!description.contains("  "), "{panel}: {description}");
            titles.insert(panel);
        }
        assert_eq!(titles.len(), each_panel(&json).len(), "a title comes twice");
    }
}

#[test]
fn panel_units_rule() {
    let known = |unit: &Value| unit::ALL.contains(&text(unit));
    for (_, json) in each_dashboard() {
        for (panel, shown) in each_panel(&json) {
            let unit = &shown["fieldConfig"]["defaults"]["unit"];
            assert!(known(unit), "{panel}: {unit}");
            for overriding in list(shown, "/fieldConfig/overrides") {
                for property in list(overriding, "/properties") {
                    let unit = &property["value"];
                    assert!(property["id"] != "unit" || known(unit), "{panel}: {unit}");
                }
            }
        }
    }
}

/// With a number's unit the VM 10000 is shown as 10 K, and its links lead nowhere.
#[test]
fn labels_in_tables_are_texts() {
    for (dashboard, json) in each_dashboard() {
        for (panel, (name, shown)) in dashboard.panels().zip(each_panel(&json)) {
            for label in panel.label_columns() {
                let column = list(shown, "/fieldConfig/overrides")
                    .iter()
                    .find(|overriding| overriding["matcher"]["options"] == label)
                    .unwrap_or_else(|| panic!("{name}: {label}"));
                let text = json!({"id": "unit", "value": unit::TEXT});
                let properties = list(column, "/properties");
                assert!(properties.contains(&text), "{name}: {label}");
            }
        }
    }
}

#[test]
fn panel_no_targets_rule() {
    for (_, json) in each_dashboard() {
        for (panel, shown) in each_panel(&json) {
            let targets = list(shown, "/targets");
            assert!(!targets.is_empty(), "{panel}");
            let ids: BTreeSet<_> = targets
                .iter()
                .map(|target| text(&target["refId"]))
                .collect();
            assert_eq!(ids.len(), targets.len(), "{panel}");
        }
    }
}

#[test]
fn no_panel_type_is_deprecated() {
    let current = ["stat", "timeseries", "bargauge", "state-timeline", "table"];
    for (_, json) in each_dashboard() {
        assert!(json["schemaVersion"].as_u64() >= Some(39));
        for (panel, shown) in each_panel(&json) {
            assert!(current.contains(&text(&shown["type"])), "{panel}");
        }
    }
}

#[test]
fn uids_and_variables_stay() {
    let found: Vec<(String, Vec<String>)> = each_dashboard()
        .iter()
        .map(|(_, json)| {
            let variables = list(json, "/templating/list")
                .iter()
                .map(|variable| text(&variable["name"]).to_owned())
                .collect();
            (text(&json["uid"]).to_owned(), variables)
        })
        .collect();
    let expected: [(&str, &[&str]); 3] = [
        ("splitlock-fleet", &["datasource", "job", "instance"]),
        ("splitlock-host", &["datasource", "job", "instance", "vm"]),
        (
            "splitlock-vm",
            &["datasource", "job", "instance", "vm", "id"],
        ),
    ];
    assert_eq!(found.len(), expected.len());
    for ((uid, variables), (expected_uid, expected_variables)) in found.iter().zip(expected) {
        assert_eq!(uid, expected_uid, "bookmarks and alerts name it");
        assert_eq!(variables, expected_variables);
    }
}

#[test]
fn panels_fill_rows_without_a_gap_or_an_overlap() {
    for (dashboard, json) in each_dashboard() {
        let mut taken: BTreeMap<(u64, u64), &Value> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for panel in list(&json, "/panels") {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
            assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["id"]);
            for column in x..x + w {
                for line in y..y + h {
                    let other = taken.insert((line, column), &panel["title"]);
                    assert_eq!(other, None, "{} is on it", panel["title"]);
                }
            }
        }
        let lines = taken.keys().map(|(line, _)| line + 1).max().unwrap();
        for line in 0..lines {
            let filled = taken.range((line, 0)..(line + 1, 0)).count();
            assert_eq!(filled, 24, "{}: line {line}", dashboard.uid);
        }
    }
}

#[test]
fn colours_mean_the_same_everywhere() {
    let known: BTreeMap<&str, &str> = colour::ALL
        .iter()
        .flat_map(|(_, palette)| palette.values.iter().copied())
        .collect();
    for (_, json) in each_dashboard() {
        for (panel, shown) in each_panel(&json) {
            for overriding in list(shown, "/fieldConfig/overrides") {
                let Some(colour) = known.get(text(&overriding["matcher"]["options"])) else {
                    continue;
                };
                let properties = list(overriding, "/properties");
                let fixed = properties.iter().find(|property| property["id"] == "color");
                if let Some(fixed) = fixed {
                    assert_eq!(fixed["value"]["fixedColor"], *colour, "{panel}");
                }
            }
        }
    }
}

/// A panel that sums by a label with colours of its own uses them.
#[test]
fn whoever_shows_a_coloured_label_uses_its_colours() {
    for (_, json) in each_dashboard() {
        for (panel, shown) in each_panel(&json) {
            for target in list(shown, "/targets") {
                let legend = text(&target["legendFormat"]);
                for (label, palette) in colour::ALL {
                    if legend != format!("{{{{{label}}}}}") {
                        continue;
                    }
                    let overridden: BTreeSet<&str> = list(shown, "/fieldConfig/overrides")
                        .iter()
                        .map(|overriding| text(&overriding["matcher"]["options"]))
                        .collect();
                    for (value, _) in palette.values {
                        // Two numbers in green and red are no lines to be told apart.
                        let stat = shown["options"]["textMode"] == "auto";
                        assert!(stat || overridden.contains(value), "{panel}: {value}");
                    }
                }
            }
        }
    }
}

#[test]
fn links_lead_to_dashboards_that_are_there_and_carry_what_is_chosen() {
    let uids = [links::FLEET, links::HOST, links::VM];
    let mut seen = BTreeSet::new();
    for (_, json) in each_dashboard() {
        let own = text(&json["uid"]);
        let names: Vec<&str> = list(&json, "/templating/list")
            .iter()
            .map(|variable| text(&variable["name"]))
            .collect();
        let mut urls: Vec<(String, bool)> = list(&json, "/links")
            .iter()
            .map(|link| (text(&link["url"]).to_owned(), link["keepTime"] == true))
            .collect();
        for (_, shown) in each_panel(&json) {
            data_links(&shown["fieldConfig"], &mut urls);
        }
        for (url, keeps_time) in urls {
            let (target, query) = url
                .strip_prefix("/d/")
                .and_then(|rest| rest.split_once('?'))
                .unwrap_or_else(|| panic!("{url}"));
            assert!(uids.contains(&target), "{url}");
            assert!(query.contains("${datasource:queryparam}"), "{url}");
            assert!(query.contains("${job:queryparam}"), "{url}");
            assert!(keeps_time || query.contains("${__url_time_range}"), "{url}");
            for (variable, _) in query
                .split("${")
                .filter_map(|part| part.split_once(":queryparam"))
            {
                assert!(names.contains(&variable), "{own} has no {variable}: {url}");
            }
            // A VM that is looked at from one host may be on another.
            if target == links::VM {
                assert!(query.contains("var-instance=$__all"), "{url}");
            }
            seen.insert((own.to_owned(), target.to_owned()));
        }
    }
    for way in [
        (links::FLEET, links::HOST),
        (links::FLEET, links::VM),
        (links::HOST, links::VM),
        (links::HOST, links::FLEET),
        (links::VM, links::HOST),
        (links::VM, links::FLEET),
    ] {
        let (from, to) = way;
        assert!(seen.contains(&(from.to_owned(), to.to_owned())), "{way:?}");
    }
}

/// Data links are in the defaults of the fields and in the overrides.
fn data_links(config: &Value, found: &mut Vec<(String, bool)>) {
    match config {
        Value::Object(fields) => {
            if let Some(url) = fields.get("url") {
                found.push((text(url).to_owned(), false));
            }
            fields.values().for_each(|field| data_links(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| data_links(item, found)),
        _ => {}
    }
}
