//! Numbers in Grafana's units.

/// A value as Grafana writes it; `now` is for what is shown as how long ago, in seconds.
pub fn shown(value: f64, unit: &str, decimals: Option<u64>, now: f64) -> String {
    let number = |value: f64| match decimals {
        Some(decimals) => format!("{value:.*}", decimals as usize),
        None => three_digits(value),
    };
    match unit {
        "cps" => format!("{} c/s", thousands(value, number)),
        "s" => {
            let (value, unit) = time(value);
            format!("{} {unit}", number(value))
        }
        "percentunit" => format!("{}%", number(value * 100.0)),
        "bytes" => {
            let (value, unit) = scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]);
            format!("{} {unit}", number(value))
        }
        "dateTimeFromNow" => ago(now - value / 1000.0),
        "short" => thousands(value, number),
        "none" | "string" => number(value),
        _ => panic!("the pictures do not know the unit {unit}"),
    }
}

fn thousands(value: f64, number: impl Fn(f64) -> String) -> String {
    let (scaled, letter) = scaled(value, 1000.0, &["", " K", " Mil", " Bil"]);
    if letter.is_empty() {
        number(scaled)
    } else {
        three_digits(scaled) + letter
    }
}

fn scaled(mut value: f64, step: f64, units: &[&'static str]) -> (f64, &'static str) {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if value.abs() < step {
            break;
        }
        value /= step;
        unit = larger;
    }
    (value, unit)
}

fn time(seconds: f64) -> (f64, &'static str) {
    match seconds.abs() {
        0.0 => (0.0, "s"),
        time if time < 1e-6 => (seconds * 1e9, "ns"),
        time if time < 1e-3 => (seconds * 1e6, "µs"),
        time if time < 1.0 => (seconds * 1e3, "ms"),
        time if time < 60.0 => (seconds, "s"),
        time if time < 3600.0 => (seconds / 60.0, "min"),
        time if time < 86_400.0 => (seconds / 3600.0, "hour"),
        _ => (seconds / 86_400.0, "day"),
    }
}

fn ago(seconds: f64) -> String {
    match seconds {
        near if near < 45.0 => "a few seconds ago".to_owned(),
        near if near < 90.0 => "a minute ago".to_owned(),
        near if near < 2700.0 => format!("{:.0} minutes ago", near / 60.0),
        near if near < 5400.0 => "an hour ago".to_owned(),
        far => format!("{:.0} hours ago", far / 3600.0),
    }
}

/// Up to three digits that count, without zeros behind the point.
fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let before_the_point = value.abs().log10().floor() as i32 + 1;
    // Two where there are many zeros already.
    let digits = if before_the_point < -1 { 2 } else { 3 };
    let decimals = usize::try_from(digits - before_the_point).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboards::unit;

    #[test]
    fn each_unit_is_written_as_grafana_does() {
        let shown = |value, unit| shown(value, unit, None, 7200.0);
        assert_eq!(shown(12_345.0, unit::COUNT), "12.3 K");
        assert_eq!(shown(0.012, unit::SECONDS), "12 ms");
        assert_eq!(shown(5400.0, unit::SECONDS), "1.5 hour");
        assert_eq!(shown(0.0, unit::PER_SECOND), "0 c/s");
        assert_eq!(shown(0.0571, unit::SHARE), "5.71%");
        assert_eq!(shown(25_165_824.0, unit::BYTES), "24 MiB");
        assert_eq!(shown(5_400_000.0, unit::AGO), "30 minutes ago");
        for known in unit::ALL {
            assert!(!shown(1.0, known).is_empty());
        }
    }

    #[test]
    fn decimals_are_kept_where_they_are_given() {
        assert_eq!(shown(720.4, unit::COUNT, Some(0), 0.0), "720");
        assert_eq!(shown(3.0, unit::COUNT, Some(2), 0.0), "3.00");
    }
}
