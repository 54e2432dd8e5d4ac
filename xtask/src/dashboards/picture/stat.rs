//! Numbers, or names, as large as there is room.

use serde_json::Value;

use super::{
    Window,
    canvas::{Anchor, Area, Canvas, FAINT, Ink, width_of},
    field::Field,
    series::Series,
};

/// Draws one beside the other.
pub fn draw(canvas: &mut Canvas, panel: &Value, series: &[Series], area: Area, window: Window) {
    let share = area.width / series.len() as f64;
    for (place, one) in series.iter().enumerate() {
        let Some(last) = one.last() else { continue };
        let field = Field::new(panel, &one.name);
        let mut shown = field.value(last, window.end);
        let is_name = panel["options"]["textMode"] == "name";
        if is_name {
            shown.text.clone_from(&one.name);
        }
        let named = !is_name && series.len() > 1;
        let middle = area.left + share * (place as f64 + 0.5);
        let size = [34.0, 26.0, 20.0, 16.0]
            .into_iter()
            .find(|size| width_of(&shown.text, *size) <= share - 6.0)
            .unwrap_or(13.0);
        let base = area.top + area.height / 2.0 + size * 0.36 + if named { 8.0 } else { -2.0 };
        let ink = Ink::data(size, shown.colour);
        canvas.text((middle, base), Anchor::Middle, ink, share, &shown.text);
        if named {
            let at = (middle, area.top + 12.0);
            let ink = Ink::label(12.0, FAINT);
            canvas.text(at, Anchor::Middle, ink, share - 6.0, &one.name);
        }
    }
}
