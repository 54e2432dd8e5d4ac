//! Each dashboard as a picture, from the answers of the real Prometheus.

use std::{collections::BTreeSet, env, fs, path::Path};

use roxmltree::{Document, Node};
use serde_json::Value;

use super::{
    agents::{BEGIN, BUSY, LENGTH, WEB1},
    choice,
    server::Server,
};
use crate::dashboards::{
    all,
    listing::Choice,
    picture::{self, Window},
};

const FOLDER: &str = "docs/images";
const UPDATE: &str = "SPLITLOCK_UPDATE_DOCS=1 cargo xtask test";

/// Draws all dashboards, holds the pictures to be whole, and those in the documentation to be of
/// these dashboards.
pub fn show_every_dashboard(server: &Server) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(FOLDER);
    for dashboard in all() {
        let name = dashboard.uid.strip_prefix("splitlock-").unwrap();
        let (choice, chosen) = chosen(name);
        let ask = |expr: &str, over_range: bool| {
            let expr = choice.fill(expr);
            if over_range {
                server.over_the_last_hour(&expr)
            } else {
                server.at_the_end(&expr)
            }
        };
        let json = dashboard.json();
        let window = Window {
            begin: (BEGIN + LENGTH - 3600) as f64,
            end: (BEGIN + LENGTH) as f64,
            step: 60.0,
        };
        let svg = picture::svg(&json, chosen, window, ask);
        is_whole(&json, &svg, ask);
        let path = folder.join(format!("dashboard-{name}.svg"));
        if env::var_os("SPLITLOCK_UPDATE_DOCS").is_some() {
            fs::write(&path, &svg).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        // Numbers may differ by the version of Prometheus, and pixels with them.
        assert!(
            words(&there) == words(&svg),
            "{} is not of this dashboard: {UPDATE}",
            path.display()
        );
    }
}

/// What is chosen, and what the picture says of it.
fn chosen(dashboard: &str) -> (Choice, &'static str) {
    let busy = choice(BUSY);
    match dashboard {
        "fleet" => (busy, "all instances"),
        "host" => {
            let instance = "hv1:9839".to_owned();
            (Choice { instance, ..busy }, "instance hv1:9839")
        }
        "vm" => {
            let (vm, id) = ("web1".to_owned(), WEB1.to_owned());
            (Choice { vm, id, ..busy }, "VM web1, all instances")
        }
        _ => panic!("nothing is chosen for {dashboard}"),
    }
}

/// It is XML, in it is each panel, in each that has an answer is data, and no number is amiss.
fn is_whole(dashboard: &Value, svg: &str, ask: impl Fn(&str, bool) -> Vec<Value>) {
    let document = Document::parse(svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
    for amiss in ["NaN", "inf\"", "inf,", "=\"-"] {
        assert!(!svg.contains(amiss), "{amiss}");
    }
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let id = format!("panel-{}", panel["id"]);
        let drawn = document
            .descendants()
            .find(|node| node.attribute("id") == Some(&id))
            .unwrap_or_else(|| panic!("{id} is not drawn"));
        let is_data = |node: Node<'_, '_>| node.attribute("class") == Some("data");
        let answered = !picture::answers(panel, &ask).is_empty();
        assert_eq!(
            drawn.descendants().any(is_data),
            answered,
            "{}",
            panel["title"]
        );
    }
}

/// All words without digits: titles, names of columns, labels of series.
fn words(svg: &str) -> BTreeSet<String> {
    let Ok(document) = Document::parse(svg) else {
        return BTreeSet::new();
    };
    let texts = document
        .descendants()
        .filter(|node| node.has_tag_name("text"));
    let texts = texts.filter_map(|node| node.text());
    let texts = texts.filter(|text| !text.contains(|letter: char| letter.is_ascii_digit()));
    texts.map(str::to_owned).collect()
}
