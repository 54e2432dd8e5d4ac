//! A dashboard as a picture: its panels as their JSON places them, filled with Prometheus's answers.
//!
//! A stand-in for Grafana, so that somebody sees each dashboard before it is imported. It reads the
//! same JSON and knows only what the dashboards use: [`stat`], [`lines`], [`bars`], [`states`] and
//! [`table`]; what it does not know makes it panic. Beside them are what these share: the
//! [`canvas`], a panel's [`series`], how a [`field`] is shown, and [`number`]s in units.

use serde_json::Value;

mod bars;
mod canvas;
mod field;
mod lines;
mod number;
mod series;
mod stat;
mod states;
mod table;

use self::{
    canvas::{Anchor, Area, Canvas, FAINT, INK, Ink},
    series::Series,
};

const WIDTH: f64 = 1200.0;
const COLUMN: f64 = WIDTH / 24.0;
/// Lower than Grafana's, which leaves much empty.
const ROW: f64 = 27.0;
const GAP: f64 = 3.0;
const HEAD: f64 = 44.0;
/// A panel's title.
const TITLE: f64 = 27.0;

/// The time range.
#[derive(Clone, Copy)]
pub struct Window {
    /// Seconds since 1970.
    pub begin: f64,
    /// Seconds since 1970.
    pub end: f64,
    /// Seconds between two points.
    pub step: f64,
}

/// Draws a dashboard; `chosen` is what its head says beside the title, `ask` puts a query to
/// Prometheus, over the range or at its end.
pub fn svg(
    dashboard: &Value,
    chosen: &str,
    window: Window,
    ask: impl Fn(&str, bool) -> Vec<Value>,
) -> String {
    let panels = dashboard["panels"].as_array().expect("a dashboard");
    let place = |panel: &Value| {
        let of = |key: &str| panel["gridPos"][key].as_f64().expect("a place");
        Area {
            left: of("x") * COLUMN + GAP,
            top: HEAD + of("y") * ROW + GAP,
            width: of("w") * COLUMN - 2.0 * GAP,
            height: of("h") * ROW - 2.0 * GAP,
        }
    };
    let bottoms = panels.iter().map(|panel| place(panel).bottom());
    let height = bottoms.fold(HEAD, f64::max) + 2.0 * GAP;
    let mut canvas = Canvas::default();
    head(&mut canvas, dashboard, chosen, window, height);
    for panel in panels {
        let area = place(panel);
        if panel["type"] == "row" {
            let at = (area.left + 6.0, area.bottom() - 4.0);
            let ink = Ink::label(14.0, INK).bold();
            canvas.text(at, Anchor::Start, ink, area.width, title(panel));
            continue;
        }
        let mut inner = Canvas::default();
        draw(&mut inner, panel, &answers(panel, &ask), area, window);
        canvas.inset(&format!("panel-{}", panel["id"]), area, inner);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\">\n{}</svg>\n",
        canvas.into_svg()
    )
}

/// What a panel's queries are answered, in an order that does not depend on Prometheus's.
pub fn answers(panel: &Value, ask: impl Fn(&str, bool) -> Vec<Value>) -> Vec<Series> {
    let targets = panel["targets"].as_array();
    let mut all = vec![];
    for target in targets.into_iter().flatten() {
        let expr = target["expr"].as_str().expect("a query");
        let answered = ask(expr, target["range"] == true);
        let mut series: Vec<Series> = answered
            .iter()
            .map(|answer| Series::new(target, answer))
            .collect();
        series.sort_by(|one, other| (&one.name, &one.labels).cmp(&(&other.name, &other.labels)));
        all.extend(series);
    }
    all
}

fn head(canvas: &mut Canvas, dashboard: &Value, chosen: &str, window: Window, height: f64) {
    let whole = Area {
        left: 0.0,
        top: 0.0,
        width: WIDTH,
        height,
    };
    canvas.fill(whole, "#f4f5f7", false);
    let ink = Ink::label(18.0, INK).bold();
    let name = dashboard["title"].as_str().expect("a title");
    canvas.text((10.0, 28.0), Anchor::Start, ink, 500.0, name);
    let time = format!(
        "{chosen}, {} to {} UTC",
        lines::time_of_day(window.begin),
        lines::time_of_day(window.end)
    );
    let at = (WIDTH - 10.0, 28.0);
    canvas.text(at, Anchor::End, Ink::label(13.0, FAINT), 680.0, &time);
}

fn title(panel: &Value) -> &str {
    panel["title"].as_str().expect("a title")
}

fn draw(canvas: &mut Canvas, panel: &Value, series: &[Series], area: Area, window: Window) {
    let Area { width, height, .. } = area;
    let frame = Area {
        left: 0.0,
        top: 0.0,
        width,
        height,
    };
    canvas.fill(frame, "#ffffff", false);
    let ink = Ink::label(13.0, INK).bold();
    canvas.text((9.0, 18.0), Anchor::Start, ink, width - 14.0, title(panel));
    let inside = Area {
        left: 9.0,
        top: TITLE,
        width: width - 18.0,
        height: height - TITLE - 6.0,
    };
    let nothing = panel["fieldConfig"]["defaults"]["noValue"].as_str();
    if series.is_empty() {
        let at = (width / 2.0, TITLE + inside.height / 2.0 + 5.0);
        let (ink, text) = match nothing {
            Some(text) => (Ink::label(22.0, INK), text),
            None => (Ink::label(13.0, FAINT), "No data"),
        };
        canvas.text(at, Anchor::Middle, ink, inside.width, text);
        return;
    }
    match panel["type"].as_str() {
        Some("stat") => stat::draw(canvas, panel, series, inside, window),
        Some("timeseries") => lines::draw(canvas, panel, series, inside, window),
        Some("bargauge") => bars::draw(canvas, panel, series, inside, window),
        Some("state-timeline") => states::draw(canvas, panel, series, inside, window),
        Some("table") => table::draw(canvas, panel, series, inside, window),
        _ => panic!("the pictures do not know the panel {}", panel["type"]),
    }
}
