//! The help.

use ratatui::text::{Line, Span};

use super::{keys::LETTERS, theme::Theme};

const KEYS: [(&str, &str); 10] = [
    (
        "↑ ↓ PgUp PgDn",
        "move; Home and End, too; the cursor stays on its VM or process",
    ),
    ("Tab", "the other table"),
    (
        "Enter",
        "look closer: addresses, exits by reason, its past; Esc comes back",
    ),
    (
        "/",
        "filter by words of name, id, unit, container, comm, pid; Esc: none",
    ),
    ("< >", "sort by the column beside; r turns the order round"),
    ("Space", "pause, and go on"),
    ("e", "newest events"),
    ("q, Ctrl-C", "quit"),
    ("- for a rate", "not known yet: it takes two looks"),
    (
        "DELAY/S",
        "time in which the kernel held it up, in each second",
    ),
];

/// As lines.
pub fn lines(theme: Theme, columns: usize) -> Vec<Line<'static>> {
    let line = |key: &str, what: &str| {
        Line::from(vec![
            Span::styled(format!("{key:<14} "), theme.strong()),
            Span::raw(super::figures::cut(what, columns.saturating_sub(15))),
        ])
    };
    let mut lines = vec![Line::styled("Keys", theme.label())];
    lines.extend(KEYS.iter().map(|(key, what)| line(key, what)));
    lines.push(Line::styled("Sort by", theme.label()));
    let half = LETTERS.len().div_ceil(2);
    for index in 0..half {
        let mut spans = vec![];
        for (letter, _, what) in LETTERS.iter().skip(index).step_by(half) {
            spans.push(Span::styled(format!("{letter} "), theme.strong()));
            spans.push(Span::raw(format!("{what:<36}")));
        }
        lines.push(Line::from(spans));
    }
    lines
}
