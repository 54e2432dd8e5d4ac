//! Numbers, times and names as text of a width.

use ratatui::text::Span;

/// A rate per second; `-` where it is not known.
pub fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) => number(rate),
    }
}

/// A count, in full up to six digits.
pub fn count(count: u64) -> String {
    if count < 1_000_000 {
        count.to_string()
    } else {
        number(count as f64)
    }
}

/// A number that is not negative, in at most five characters or so.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value < 0.05 {
        return "<0.1".to_owned();
    }
    if value < 9.95 {
        return format!("{value:.1}");
    }
    if value < 9_999.5 {
        return format!("{value:.0}");
    }
    let mut scaled = value;
    for unit in ["k", "M", "G", "T", "P"] {
        scaled /= 1000.0;
        if scaled < 99.95 {
            return format!("{scaled:.1}{unit}");
        }
        if scaled < 999.5 {
            return format!("{scaled:.0}{unit}");
        }
    }
    format!("{value:.0e}")
}

/// Seconds as a time that passed within something: `12ms`, `1.5s`.
pub fn span(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0".to_owned();
    }
    if seconds < 0.001 {
        return "<1ms".to_owned();
    }
    if seconds < 0.9995 {
        return format!("{:.0}ms", seconds * 1000.0);
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    age(seconds)
}

/// Seconds as an age: `7s`, `5m`, `3h`, `2d`. The future is now.
pub fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    for (unit, length, until) in [
        ("s", 1.0, 120.0),
        ("m", 60.0, 7200.0),
        ("h", 3600.0, 172_800.0),
        ("d", 86_400.0, 86_400e4),
    ] {
        if seconds < until {
            return format!("{:.0}{unit}", (seconds / length).floor());
        }
    }
    "ages".to_owned()
}

/// Columns that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The beginning of a text, with `…` where that is not all.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    let mut buffer = [0; 4];
    for character in text.chars() {
        let wide = width(character.encode_utf8(&mut buffer));
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        shown.push(character);
    }
    if columns > 0 {
        shown.push('…');
    }
    shown
}

/// The same in exactly so many columns.
pub fn left(text: &str, columns: usize) -> String {
    let shown = cut(text, columns);
    let gap = columns.saturating_sub(width(&shown));
    shown + &" ".repeat(gap)
}

/// The same, at the right edge.
pub fn right(text: &str, columns: usize) -> String {
    let shown = cut(text, columns);
    let gap = columns.saturating_sub(width(&shown));
    " ".repeat(gap) + &shown
}

/// A text in lines of at most so many columns, broken between words where there are any.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = vec![];
    let mut line = String::new();
    for word in text.split(' ') {
        let gap = usize::from(!line.is_empty());
        if width(&line) + gap + width(word) <= columns {
            if gap == 1 {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        let mut buffer = [0; 4];
        for character in word.chars() {
            if width(&line) + width(character.encode_utf8(&mut buffer)) > columns {
                lines.push(std::mem::take(&mut line));
            }
            line.push(character);
        }
    }
    lines.push(line);
    lines
}

/// Values as a line of bars, the highest as high as the line; nothing is a dot.
pub fn sparkline(values: impl Iterator<Item = f32> + Clone) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = values.clone().fold(0.0, f32::max);
    values
        .map(|value| {
            if value <= 0.0 {
                return '·';
            }
            let step = (value / top * 7.0).round() as usize;
            BARS[step.min(7)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.01, "<0.1"),
            (0.96, "1.0"),
            (9.94, "9.9"),
            (9.96, "10"),
            (9_999.0, "9999"),
            (9_999.9, "10.0k"),
            (123_456.0, "123k"),
            (999_700.0, "1.0M"),
            (4.2e9, "4.2G"),
            (1e300, "1e300"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(rate(None), "-");
        assert_eq!(count(999_999), "999999");
        assert_eq!(count(1_000_000), "1.0M");
        assert!(count(u64::MAX).len() <= 6);
    }

    #[test]
    fn times() {
        assert_eq!(span(0.0), "0");
        assert_eq!(span(0.000_4), "<1ms");
        assert_eq!(span(0.25), "250ms");
        assert_eq!(span(1.5), "1.5s");
        assert_eq!(age(-5.0), "0s");
        assert_eq!(age(119.9), "119s");
        assert_eq!(age(7199.0), "119m");
        assert_eq!(age(90_000.0), "25h");
        assert_eq!(age(1e12), "ages");
    }

    #[test]
    fn texts_keep_their_width() {
        assert_eq!(left("abc", 5), "abc  ");
        assert_eq!(left("abcdef", 5), "abcd…");
        assert_eq!(right("12", 4), "  12");
        // Characters of two columns, which may leave one over.
        assert_eq!(left("日本語", 4), "日… ");
        assert_eq!(cut("abc", 0), "");
        for columns in 1..12 {
            assert_eq!(width(&left("größe 日本語 x", columns)), columns);
        }
    }

    #[test]
    fn texts_are_broken_between_words() {
        assert_eq!(wrap("lock add dword", 9), ["lock add", "dword"]);
        assert_eq!(wrap("/a/long/path", 5), ["/a/lo", "ng/pa", "th"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn bars_tell_something_from_nothing() {
        assert_eq!(sparkline([0.0, 0.01, 1.0].into_iter()), "·▁█");
        assert_eq!(sparkline([0.0, 0.0].into_iter()), "··");
    }
}
