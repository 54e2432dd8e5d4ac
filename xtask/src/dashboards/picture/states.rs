//! What was when: a lane for each series.

use serde_json::Value;

use super::{
    Window,
    canvas::{Anchor, Area, Canvas, INK, Ink, width_of},
    field::{Field, in_turn},
    lines::time_axis,
    series::{Series, stretches},
};

/// Draws the lanes over one axis of time.
pub fn draw(canvas: &mut Canvas, panel: &Value, series: &[Series], area: Area, window: Window) {
    let names = series.iter().map(|one| width_of(&one.name, 12.0));
    let names = names.fold(0.0, f64::max).min(area.width * 0.3) + 10.0;
    let plot = Area {
        left: area.left + names,
        top: area.top + 2.0,
        width: area.width - names,
        height: area.height - 20.0,
    };
    time_axis(canvas, plot, window);
    let lane = plot.height / series.len() as f64;
    for (place, one) in series.iter().enumerate() {
        let field = Field::new(panel, &one.name);
        let colour = field.fixed_colour().unwrap_or_else(|| in_turn(place));
        let top = plot.top + lane * place as f64;
        let at = (plot.left - 8.0, top + lane / 2.0 + 4.0);
        canvas.text(
            at,
            Anchor::End,
            Ink::label(12.0, INK),
            names - 8.0,
            &one.name,
        );
        for stretch in stretches(&one.points, window.step, |point| point.0) {
            let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else {
                continue;
            };
            // A state holds until it is asked for again.
            let end = (last.0 + window.step).min(window.end);
            let left = window.across(plot, first.0);
            let bar = Area {
                left,
                top: top + lane * 0.1,
                width: (window.across(plot, end) - left).max(2.0),
                height: lane * 0.8,
            };
            canvas.fill(bar, colour, true);
        }
    }
}
