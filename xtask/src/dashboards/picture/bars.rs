//! A level bar for each series.

use serde_json::Value;

use super::{
    Window,
    canvas::{Anchor, Area, Canvas, GRID, INK, Ink, width_of},
    field::Field,
    series::Series,
};

/// Draws one below the other.
pub fn draw(canvas: &mut Canvas, panel: &Value, series: &[Series], area: Area, window: Window) {
    const NUMBERS: f64 = 56.0;
    let names = series.iter().map(|one| width_of(&one.name, 12.0));
    let names = names.fold(0.0, f64::max).min(area.width * 0.45) + 8.0;
    let highest = series.iter().map(Series::highest).fold(0.0, f64::max);
    let maximum = panel["fieldConfig"]["defaults"]["max"].as_f64();
    let maximum = maximum.unwrap_or(highest);
    let step = (area.height / series.len() as f64).min(44.0);
    for (place, one) in series.iter().enumerate() {
        let Some(last) = one.last() else { continue };
        let shown = Field::new(panel, &one.name).value(last, window.end);
        let top = area.top + step * place as f64;
        let base = top + step / 2.0 + 4.0;
        let ink = Ink::label(12.0, INK);
        canvas.text(
            (area.left, base),
            Anchor::Start,
            ink,
            names - 6.0,
            &one.name,
        );
        let whole = Area {
            left: area.left + names,
            top: top + step * 0.15,
            width: area.width - names - NUMBERS,
            height: step * 0.7,
        };
        canvas.fill(whole, GRID, false);
        let share = if maximum > 0.0 { last / maximum } else { 0.0 };
        let full = Area {
            width: whole.width * share.clamp(0.0, 1.0),
            ..whole
        };
        canvas.fill(full, shown.colour, true);
        let ink = Ink::data(13.0, shown.colour);
        let at = (area.right(), base);
        canvas.text(at, Anchor::End, ink, NUMBERS, &shown.text);
    }
}
