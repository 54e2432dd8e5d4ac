//! How a panel's JSON has a field shown: defaults, and what overrides them for this field.

use serde_json::Value;

use super::{canvas::INK, number};

/// One field of a panel.
pub struct Field<'a> {
    config: &'a Value,
    name: &'a str,
}

/// A value as it is shown.
pub struct Shown {
    /// The words.
    pub text: String,
    /// Their colour.
    pub colour: &'static str,
}

impl<'a> Field<'a> {
    pub fn new(panel: &'a Value, name: &'a str) -> Self {
        Self {
            config: &panel["fieldConfig"],
            name,
        }
    }

    /// An option, by Grafana's name.
    pub fn option(&self, id: &str) -> Option<&'a Value> {
        self.overridden(id).or_else(|| {
            let path = format!("/{}", id.replace('.', "/"));
            self.config["defaults"].pointer(&path)
        })
    }

    fn overridden(&self, id: &str) -> Option<&'a Value> {
        let overrides = self.config["overrides"].as_array()?;
        overrides
            .iter()
            .filter(|one| self.is_meant(&one["matcher"]))
            .filter_map(|one| one["properties"].as_array())
            .flatten()
            .rev()
            .find(|property| property["id"] == id)
            .map(|property| &property["value"])
    }

    fn is_meant(&self, matcher: &Value) -> bool {
        let options = matcher["options"].as_str().unwrap_or_default();
        match matcher["id"].as_str() {
            Some("byName") => options == self.name,
            // Names between bars are all that the dashboards use.
            Some("byRegexp") => options
                .strip_prefix("/^(")
                .and_then(|rest| rest.strip_suffix(")$/"))
                .is_some_and(|names| names.split('|').any(|name| name == self.name)),
            _ => panic!("the pictures do not know {matcher}"),
        }
    }

    /// What the field is called.
    pub fn display_name(&self) -> &'a str {
        let given = self.option("displayName").and_then(Value::as_str);
        given.unwrap_or(self.name)
    }

    /// The colour that it always has.
    pub fn fixed_colour(&self) -> Option<&'static str> {
        let colour = self.overridden("color")?["fixedColor"].as_str()?;
        Some(named(colour))
    }

    /// A number in its unit, without colour.
    pub fn number(&self, value: f64, now: f64) -> String {
        let unit = self.option("unit").and_then(Value::as_str);
        let decimals = self.option("decimals").and_then(Value::as_u64);
        number::shown(value, unit.unwrap_or("none"), decimals, now)
    }

    /// A number as words, or in its unit; coloured.
    pub fn value(&self, value: f64, now: f64) -> Shown {
        let mut shown = Shown {
            text: self.number(value, now),
            colour: self.fixed_colour().unwrap_or_else(|| self.step(value)),
        };
        self.map(&value.to_string(), &mut shown);
        shown
    }

    /// A label's value.
    pub fn label(&self, value: &str) -> Shown {
        let mut shown = Shown {
            text: value.to_owned(),
            colour: INK,
        };
        self.map(value, &mut shown);
        shown
    }

    fn map(&self, value: &str, shown: &mut Shown) {
        let mappings = self.option("mappings").and_then(Value::as_array);
        for mapping in mappings.into_iter().flatten() {
            let to = &mapping["options"][value];
            if let Some(text) = to["text"].as_str() {
                text.clone_into(&mut shown.text);
            }
            if let Some(colour) = to["color"].as_str() {
                shown.colour = named(colour);
            }
        }
    }

    fn step(&self, value: f64) -> &'static str {
        let steps = self.option("thresholds").map(|all| &all["steps"]);
        let reached = steps
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .rfind(|step| step["value"].as_f64().is_none_or(|from| value >= from));
        reached.map_or(INK, |step| named(step["color"].as_str().unwrap_or("text")))
    }
}

/// Grafana's names of colours, as they are on light ground, and the dashboards' own.
fn named(colour: &str) -> &'static str {
    match colour {
        "text" => INK,
        "green" => "#3f9142",
        "orange" => "#e8710a",
        "red" => "#d6304a",
        "yellow" => "#d9a400",
        "dark-yellow" => "#c79a00",
        "blue" => "#3274d9",
        "purple" => "#a352cc",
        "#6E6E6E" => "#6e6e6e",
        "#B0B0B0" => "#b0b0b0",
        "#5AA9A3" => "#5aa9a3",
        "#A0742F" => "#a0742f",
        "#8AB8FF" => "#8ab8ff",
        "#E0699C" => "#e0699c",
        _ => panic!("the pictures do not know the colour {colour}"),
    }
}

/// The colour of the series in this place, unless it has its own.
pub fn in_turn(place: usize) -> &'static str {
    const TURN: &[&str] = &[
        "#56a64b", "#d9a400", "#5794f2", "#e8710a", "#d6304a", "#3274d9", "#a352cc", "#705da0",
    ];
    TURN[place % TURN.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_override_goes_before_the_defaults() {
        let panel = json!({"fieldConfig": {
            "defaults": {
                "unit": "short",
                "thresholds": {"steps": [
                    {"color": "green", "value": null}, {"color": "red", "value": 1.0},
                ]},
            },
            "overrides": [{
                "matcher": {"id": "byRegexp", "options": "/^(Value|Value #A)$/"},
                "properties": [{"id": "unit", "value": "s"}, {"id": "displayName", "value": "Delay"}],
            }],
        }});
        let field = Field::new(&panel, "Value #A");
        assert_eq!(field.display_name(), "Delay");
        let shown = field.value(2.0, 0.0);
        assert_eq!((shown.text.as_str(), shown.colour), ("2 s", "#d6304a"));
        let other = Field::new(&panel, "Value #B").value(0.0, 0.0);
        assert_eq!((other.text.as_str(), other.colour), ("0", "#3f9142"));
    }
}
