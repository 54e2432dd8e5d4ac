//! The picture of a table: one bar for each row.

use std::fmt::Write as _;

use super::results::{Row, Section};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 360.0;
const NUMBERS: f64 = 60.0;
const STEP: f64 = 26.0;
const HEAD: f64 = 44.0;

/// As SVG, readable on light and dark ground.
pub fn svg(section: &Section) -> String {
    let rows: Vec<&Row> = section.rows.iter().collect();
    let height = HEAD + STEP * rows.len() as f64 + 8.0;
    let most = rows.iter().map(|row| row.most).fold(1.0, f64::max);
    let scale = (WIDTH - LABELS - NUMBERS) / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"24\" font-size=\"15\" font-weight=\"bold\" fill=\"#222222\">{}</text>\n",
        escape(&section.title)
    );
    for (index, row) in rows.iter().enumerate() {
        let top = HEAD + STEP * index as f64;
        let colour = if row.name.starts_with("splitlock-agent") {
            "#1f6feb"
        } else {
            "#9aa4b2"
        };
        let middle = top + 14.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\" fill=\"#222222\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{top:.0}\" width=\"{:.1}\" height=\"18\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.0}\" y2=\"{y:.0}\" stroke=\"#222222\"/>\
             <text x=\"{:.1}\" y=\"{middle:.0}\" fill=\"#222222\">{:.0}</text>",
            LABELS - 8.0,
            escape(&row.name),
            row.median * scale,
            LABELS + row.least * scale,
            LABELS + row.most * scale,
            LABELS + row.most * scale + 6.0,
            row.median,
            y = top + 9.0,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_a_bar_inside_the_picture() {
        let row = |name: &str, median: f64| Row {
            name: name.to_owned(),
            median,
            least: median - 1.0,
            most: median + 1.0,
            over_base: None,
        };
        let svg = svg(&Section {
            key: "k".to_owned(),
            title: "a < b".to_owned(),
            command: String::new(),
            machine: String::new(),
            unit: String::new(),
            rows: vec![row("empty", 10.0), row("args->reason", 99.0)],
        });
        assert!(svg.contains("a &lt; b") && svg.contains("args-&gt;reason"));
        assert_eq!(svg.matches("height=\"18\"").count(), 2);
        // The longest whisker ends before the numbers.
        assert!(svg.contains("x2=\"800.0\""), "{svg}");
    }
}
