//! Colours, defined once: a label value has the same one on every dashboard.

use serde_json::{Value, json};

/// As it should be.
pub const GOOD: &str = "green";
/// Worth a look.
pub const ATTENTION: &str = "orange";
/// Wrong.
pub const BAD: &str = "red";
/// A fact that is neither.
pub const PLAIN: &str = "text";

/// One label's values, each with its colour.
pub struct Palette {
    /// Value and colour.
    pub values: &'static [(&'static str, &'static str)],
}

/// What the kernel did. The modes that do it have the same colours.
pub const OUTCOME: Palette = Palette {
    values: &[
        ("warned", "yellow"),
        ("sigbus", BAD),
        ("reported", "blue"),
        ("throttled", "purple"),
    ],
};

/// The mode of detection.
pub const MODE: Palette = Palette {
    values: &[
        ("warn", "yellow"),
        ("fatal", BAD),
        ("ratelimit", "purple"),
        ("off", ATTENTION),
        ("unsupported", "#6E6E6E"),
        ("unknown", "#B0B0B0"),
    ],
};

/// Whose code.
pub const ORIGIN: Palette = Palette {
    values: &[("user", "#5AA9A3"), ("guest", "#A0742F")],
};

/// Which mechanism noticed.
pub const TRAP: Palette = Palette {
    values: &[("split_lock", "#8AB8FF"), ("bus_lock", "#E0699C")],
};

/// What a hook's count means.
pub const COUNTS: Palette = Palette {
    values: &[
        ("every_trap", GOOD),
        ("lower_bound", "dark-yellow"),
        ("first_per_thread", ATTENTION),
        ("none", PLAIN),
    ],
};

/// All palettes, each with its label.
#[cfg(test)]
pub const ALL: &[(&str, &Palette)] = &[
    ("outcome", &OUTCOME),
    ("mode", &MODE),
    ("origin", &ORIGIN),
    ("trap", &TRAP),
    ("counts", &COUNTS),
];

impl Palette {
    /// Overrides for series that are named by the value.
    pub fn overrides(&self) -> Vec<Value> {
        self.values
            .iter()
            .map(|(value, colour)| fixed(value, colour))
            .collect()
    }

    /// Value mappings for a column that shows the value.
    pub fn mappings(&self) -> Value {
        let options: serde_json::Map<String, Value> = self
            .values
            .iter()
            .enumerate()
            .map(|(index, (value, colour))| {
                let shown = value.replace('_', " ");
                let mapping = json!({"color": colour, "index": index, "text": shown});
                ((*value).to_owned(), mapping)
            })
            .collect();
        json!([{"type": "value", "options": options}])
    }
}

/// The override that gives one series its colour.
pub fn fixed(series: &str, colour: &str) -> Value {
    json!({
        "matcher": {"id": "byName", "options": series},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
    })
}

/// Mappings of 1 and 0 to words.
pub fn yes_no(yes: (&str, &str), no: (&str, &str)) -> Value {
    json!([{"type": "value", "options": {
        "1": {"text": yes.0, "color": yes.1, "index": 0},
        "0": {"text": no.0, "color": no.1, "index": 1},
    }}])
}

/// Steps of a threshold: the first colour holds from below, each other from its value on.
pub fn thresholds(below: &str, steps: &[(f64, &str)]) -> Value {
    let mut all = vec![json!({"color": below, "value": null})];
    all.extend(
        steps
            .iter()
            .map(|(from, colour)| json!({"color": colour, "value": from})),
    );
    json!({"mode": "absolute", "steps": all})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn values_of_one_label_can_be_told_apart() {
        for (label, Palette { values }) in ALL {
            let colours: BTreeSet<_> = values.iter().map(|(_, colour)| colour).collect();
            assert_eq!(colours.len(), values.len(), "{label}");
        }
    }

    #[test]
    fn an_outcome_looks_like_the_mode_that_brings_it() {
        let of = |palette: &Palette, value: &str| {
            let (_, colour) = palette.values.iter().find(|(v, _)| *v == value).unwrap();
            *colour
        };
        for (outcome, mode) in [
            ("warned", "warn"),
            ("sigbus", "fatal"),
            ("throttled", "ratelimit"),
        ] {
            assert_eq!(of(&OUTCOME, outcome), of(&MODE, mode), "{outcome}");
        }
    }
}
