//! What is drawn with: text, boxes and paths as SVG.

use std::fmt::Write as _;

/// Ink of text.
pub const INK: &str = "#24292e";
/// Ink of what is beside the point: axes, heads of columns.
pub const FAINT: &str = "#6a737d";
/// Lines of a grid.
pub const GRID: &str = "#e4e7eb";

/// SVG under construction.
#[derive(Default)]
pub struct Canvas {
    svg: String,
}

/// Where a text's `x` is.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub struct Ink<'a> {
    /// Height of the font in pixels.
    pub size: f64,
    /// Its colour.
    pub colour: &'a str,
    /// Whether it is bold.
    pub bold: bool,
    /// Whether it shows data: the tests look for that.
    pub data: bool,
}

impl<'a> Ink<'a> {
    /// Words that are there with any data.
    pub fn label(size: f64, colour: &'a str) -> Self {
        Self {
            size,
            colour,
            bold: false,
            data: false,
        }
    }

    /// Words that are the data.
    pub fn data(size: f64, colour: &'a str) -> Self {
        Self {
            data: true,
            ..Self::label(size, colour)
        }
    }

    /// The same, bold.
    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
    }
}

/// A rectangle.
#[derive(Clone, Copy)]
pub struct Area {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

impl Canvas {
    /// What has been drawn.
    pub fn into_svg(self) -> String {
        self.svg
    }

    /// A line of text, cut to what fits in `room`.
    pub fn text(
        &mut self,
        (x, y): (f64, f64),
        anchor: Anchor,
        ink: Ink<'_>,
        room: f64,
        text: &str,
    ) {
        let Ink {
            size,
            colour,
            bold,
            data,
        } = ink;
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        // Bold letters are wider.
        let text = fitted(text, if bold { size * 1.04 } else { size }, room);
        let bold = if bold { " font-weight=\"bold\"" } else { "" };
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{colour}\"{anchor}{bold}{}>{}</text>",
            mark(data),
            escape(&text)
        ));
    }

    /// A filled box.
    pub fn fill(&mut self, area: Area, colour: &str, data: bool) {
        let Area {
            left,
            top,
            width,
            height,
        } = area;
        self.put(format_args!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{colour}\"{}/>",
            mark(data)
        ));
    }

    /// A thin level or upright line.
    pub fn rule(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
        ));
    }

    /// A line through points; a dot, where there is only one.
    pub fn polyline(&mut self, points: &[(f64, f64)], colour: &str) {
        if let [(x, y)] = points {
            self.put(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\" class=\"data\"/>"
            ));
            return;
        }
        self.put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" \
             stroke-linejoin=\"round\" class=\"data\"/>",
            joined(points)
        ));
    }

    /// A filled shape.
    pub fn polygon(&mut self, points: &[(f64, f64)], colour: &str, opacity: f64) {
        self.put(format_args!(
            "<polygon points=\"{}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>",
            joined(points)
        ));
    }

    /// Another one in it, which ends at its own borders.
    pub fn inset(&mut self, id: &str, area: Area, inner: Canvas) {
        let Area {
            left,
            top,
            width,
            height,
        } = area;
        self.put(format_args!(
            "<svg id=\"{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">",
            escape(id)
        ));
        self.svg.push_str(&inner.svg);
        self.put(format_args!("</svg>"));
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.svg, "{element}").expect("a string takes all");
    }
}

fn mark(data: bool) -> &'static str {
    if data { " class=\"data\"" } else { "" }
}

fn joined(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    points.join(" ")
}

/// About how wide a text is: the viewer chooses the font.
pub fn width_of(text: &str, size: f64) -> f64 {
    let ems = text.chars().map(|letter| match letter {
        'i' | 'j' | 'l' | 'I' | 'f' | 't' | 'r' | ' ' | '.' | ',' | ':' | ';' | '\'' | '|' => 0.34,
        'm' | 'w' | 'M' | 'W' | '%' | '#' => 0.9,
        letter if letter.is_uppercase() => 0.7,
        _ => 0.59,
    });
    size * ems.sum::<f64>()
}

fn fitted(text: &str, size: f64, room: f64) -> String {
    if width_of(text, size) <= room {
        return text.to_owned();
    }
    let mut cut = text.to_owned();
    while cut.pop().is_some() && width_of(&cut, size) + size > room {}
    cut.truncate(cut.trim_end().len());
    cut + "…"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_text() {
        let mut canvas = Canvas::default();
        let ink = Ink::data(12.0, INK);
        canvas.text((0.0, 0.0), Anchor::Start, ink, 500.0, "<a b=\"c\">&");
        let svg = canvas.into_svg();
        assert!(
            svg.contains(">&lt;a b=&quot;c&quot;&gt;&amp;</text>"),
            "{svg}"
        );
    }

    #[test]
    fn a_text_is_cut_to_its_room() {
        assert_eq!(fitted("short", 10.0, 100.0), "short");
        let cut = fitted("7f9c24e8-0000-4000-8000-00000000001a", 10.0, 100.0);
        assert!(cut.starts_with("7f9c24e8-") && cut.ends_with('…'), "{cut}");
        assert!(width_of(&cut, 10.0) <= 110.0, "{cut}");
    }
}
