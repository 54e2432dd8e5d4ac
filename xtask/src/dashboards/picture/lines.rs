//! Lines over time, or areas that add up, and their legend.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Window,
    canvas::{Anchor, Area, Canvas, FAINT, GRID, INK, Ink, width_of},
    field::{Field, in_turn},
    series::{Series, stretches},
};

const LEGEND_LINE: f64 = 15.0;

/// One series with its place in the picture.
struct Line<'a> {
    series: &'a Series,
    field: Field<'a>,
    colour: &'static str,
    /// Time, where its area begins, and where it ends.
    points: Vec<(f64, f64, f64)>,
}

/// Draws the plot above its legend.
pub fn draw(canvas: &mut Canvas, panel: &Value, series: &[Series], area: Area, window: Window) {
    let stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal";
    let mut lines = lines(panel, series, stacked);
    let most = ((area.height * 0.42) / LEGEND_LINE).floor().max(2.0) as usize;
    let shown = lines.len().min(most - 1);
    let legend = LEGEND_LINE * (shown + 1) as f64;
    let upper = Area {
        height: area.height - legend - 24.0,
        ..area
    };
    plot(canvas, panel, &lines, upper, window, stacked);
    lines.sort_by(|one, other| other.series.mean().total_cmp(&one.series.mean()));
    let below = Area {
        top: area.bottom() - legend,
        height: legend,
        ..area
    };
    self::legend(canvas, &lines, below, shown, window);
}

fn lines<'a>(panel: &'a Value, series: &'a [Series], stacked: bool) -> Vec<Line<'a>> {
    let mut below: BTreeMap<u64, f64> = BTreeMap::new();
    let line = |(place, series): (usize, &'a Series)| {
        let field = Field::new(panel, &series.name);
        let colour = field.fixed_colour().unwrap_or_else(|| in_turn(place));
        let known = series.points.iter().filter(|(_, value)| value.is_finite());
        let points = known
            .map(|(time, value)| {
                let floor = below.entry(*time as u64).or_insert(0.0);
                let from = *floor;
                if stacked {
                    *floor += value;
                }
                (*time, from, from + value)
            })
            .collect();
        Line {
            series,
            field,
            colour,
            points,
        }
    };
    series.iter().enumerate().map(line).collect()
}

fn plot(
    canvas: &mut Canvas,
    panel: &Value,
    lines: &[Line<'_>],
    area: Area,
    window: Window,
    stacked: bool,
) {
    let highest = lines.iter().flat_map(|line| &line.points);
    let highest = highest.map(|point| point.2).fold(0.0, f64::max);
    let given = panel["fieldConfig"]["defaults"]["max"].as_f64();
    let field = Field::new(panel, "");
    let parts = if area.height > 70.0 { 4.0 } else { 2.0 };
    let base = match field.option("unit").and_then(Value::as_str) {
        Some("bytes") => 1024_f64.powf(highest.max(1.0).log(1024.0).floor()),
        _ => 1.0,
    };
    let (step, maximum) = scale(highest / base, given.map(|given| given / base), parts);
    let (step, maximum) = (step * base, maximum * base);
    let ticks: Vec<f64> = (0_u32..)
        .map(|tick| f64::from(tick) * step)
        .take_while(|value| *value <= maximum * 1.0001)
        .collect();
    let labels: Vec<String> = ticks
        .iter()
        .map(|value| field.number(*value, 0.0))
        .collect();
    let margin = labels.iter().map(|label| width_of(label, 11.0));
    let margin = margin.fold(0.0, f64::max) + 8.0;
    let plot = Area {
        left: area.left + margin,
        top: area.top + 4.0,
        width: area.width - margin - 4.0,
        height: area.height - 4.0,
    };
    let up = |value: f64| plot.bottom() - plot.height * (value / maximum).clamp(0.0, 1.0);
    for (value, label) in ticks.iter().zip(&labels) {
        let y = up(*value);
        canvas.rule((plot.left, y), (plot.right(), y), GRID);
        let ink = Ink::label(11.0, FAINT);
        canvas.text((plot.left - 6.0, y + 4.0), Anchor::End, ink, margin, label);
    }
    time_axis(canvas, plot, window);
    for line in lines {
        for stretch in stretches(&line.points, window.step, |point| point.0) {
            let across = |time: f64| window.across(plot, time);
            let edge: Vec<(f64, f64)> = stretch.iter().map(|p| (across(p.0), up(p.2))).collect();
            let floor = stretch.iter().rev().map(|p| (across(p.0), up(p.1)));
            let shape: Vec<(f64, f64)> = edge.iter().copied().chain(floor).collect();
            if stretch.len() > 1 {
                canvas.polygon(&shape, line.colour, if stacked { 0.4 } else { 0.08 });
            }
            canvas.polyline(&edge, line.colour);
        }
    }
}

/// The step between two lines of the grid, and where the scale ends.
fn scale(highest: f64, given: Option<f64>, parts: f64) -> (f64, f64) {
    let wanted = given.unwrap_or(highest);
    let wanted = if wanted > 0.0 { wanted } else { 1.0 };
    let power = 10_f64.powf((wanted / parts).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|round| round * power);
    let step = steps
        .into_iter()
        .find(|step| step * parts >= wanted * 0.999);
    let step = step.unwrap_or(power * 10.0);
    let maximum = (wanted / step - 0.001).ceil() * step;
    // A line at the very top would look cut off.
    let room = if highest > maximum * 0.97 { 1.05 } else { 1.0 };
    (step, given.unwrap_or(maximum * room))
}

fn legend(canvas: &mut Canvas, lines: &[Line<'_>], area: Area, shown: usize, window: Window) {
    let column = (area.width * 0.22).clamp(48.0, 82.0);
    let numbers = |place: usize| area.right() - column * (2 - place) as f64;
    let head = Ink::label(11.0, FAINT);
    let base = area.top + 11.0;
    let left_out = lines.len() - shown;
    let name = match left_out {
        0 => "Name".to_owned(),
        more => format!("Name ({more} more)"),
    };
    let room = area.width - 3.0 * column - 18.0;
    canvas.text((area.left + 18.0, base), Anchor::Start, head, room, &name);
    for (place, name) in ["Mean", "Max", "Last"].into_iter().enumerate() {
        canvas.text((numbers(place), base), Anchor::End, head, column, name);
    }
    for (place, line) in lines.iter().take(shown).enumerate() {
        let base = base + LEGEND_LINE * (place + 1) as f64;
        let stroke = Area {
            left: area.left,
            top: base - 6.0,
            width: 13.0,
            height: 4.0,
        };
        canvas.fill(stroke, line.colour, false);
        let ink = Ink::label(12.0, INK);
        let series = line.series;
        let at = (area.left + 18.0, base);
        canvas.text(at, Anchor::Start, ink, room, &series.name);
        let last = series.last().unwrap_or(0.0);
        let calculated = [series.mean(), series.highest(), last];
        for (place, value) in calculated.into_iter().enumerate() {
            let text = line.field.number(value, window.end);
            canvas.text((numbers(place), base), Anchor::End, ink, column, &text);
        }
    }
}

impl Window {
    /// Where a time is between the left and the right of a plot.
    pub fn across(self, plot: Area, time: f64) -> f64 {
        let share = (time - self.begin) / (self.end - self.begin);
        plot.left + plot.width * share.clamp(0.0, 1.0)
    }
}

/// Upright lines at round times, and the times below the plot.
pub fn time_axis(canvas: &mut Canvas, plot: Area, window: Window) {
    let whole = window.end - window.begin;
    let steps = [300.0, 600.0, 1200.0, 1800.0];
    // A label has 34 pixels.
    let step = steps
        .into_iter()
        .find(|step| plot.width * step / whole > 46.0);
    let step = step.unwrap_or(3600.0);
    let mut time = (window.begin / step).ceil() * step;
    while time <= window.end {
        let x = window.across(plot, time);
        canvas.rule((x, plot.top), (x, plot.bottom()), GRID);
        let ink = Ink::label(11.0, FAINT);
        let at = (x.min(plot.right() - 12.0), plot.bottom() + 14.0);
        canvas.text(at, Anchor::Middle, ink, 60.0, &time_of_day(time));
        time += step;
    }
}

/// Hours and minutes, UTC.
pub fn time_of_day(time: f64) -> String {
    let minutes = (time as u64 / 60) % (24 * 60);
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_scale_is_round_and_holds_the_highest() {
        assert_eq!(scale(0.0, None, 4.0), (0.25, 1.0));
        assert_eq!(scale(7.3, None, 4.0), (2.0, 8.0));
        assert_eq!(scale(0.031, Some(1.0), 4.0).1, 1.0);
        for highest in [0.003, 1.0, 4.0, 99.0, 12_345.0] {
            assert!(scale(highest, None, 4.0).1 > highest, "{highest}");
        }
    }

    #[test]
    fn what_is_stacked_begins_where_the_other_ends() {
        let panel = json!({"fieldConfig": {"defaults": {}, "overrides": []}});
        let of = |name: &str, value: &str| {
            let answer = json!({"metric": {}, "values": [[60, value]]});
            Series::new(&json!({"legendFormat": name}), &answer)
        };
        let series = [of("a", "2"), of("b", "3")];
        let points = |stacked| {
            let lines = lines(&panel, &series, stacked);
            lines[1].points.clone()
        };
        assert_eq!(points(true), [(60.0, 2.0, 5.0)]);
        assert_eq!(points(false), [(60.0, 0.0, 3.0)]);
    }
}
