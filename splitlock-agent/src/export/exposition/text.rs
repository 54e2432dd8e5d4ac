//! The text format, version 0.0.4: families of series, one line each.
//!
//! Series are written straight into the text. The `prometheus` crate's families would hold them all
//! as objects first, with each label's name and value a `String`: 18 MB for 10,000 processes.

use std::fmt::{self, Display, Write as _};

use prometheus::proto::MetricType;

use crate::export::metrics::Family;

/// A text while it is written.
#[derive(Default)]
pub struct Text(String);

impl Text {
    /// An empty text with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Begins a family, which has to be finished before the next. One without values is left out.
    pub const fn family(&mut self, family: &'static Family) -> Series<'_> {
        Series {
            text: &mut self.0,
            family,
            has_head: false,
        }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// A family while it is written.
pub struct Series<'a> {
    text: &'a mut String,
    family: &'static Family,
    has_head: bool,
}

impl Series<'_> {
    /// Adds a value; `labels` are in the family's order.
    pub fn add(&mut self, labels: &[&dyn Display], value: impl Display) {
        // A `String` takes all that is written.
        let _ = self.try_add(labels, value);
    }

    fn try_add(&mut self, labels: &[&dyn Display], value: impl Display) -> fmt::Result {
        let Family {
            name,
            kind,
            labels: names,
            help,
        } = self.family;
        debug_assert_eq!(labels.len(), names.len());
        if !self.has_head {
            self.has_head = true;
            let kind = match kind {
                MetricType::COUNTER => "counter",
                _ => "gauge",
            };
            writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        }
        self.text.push_str(name);
        let mut before = '{';
        for (name, value) in names.iter().zip(labels) {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            write!(Escaped(self.text), "{value}")?;
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        writeln!(self.text, " {value}")
    }
}

/// Takes the value of a label.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(['\\', '"', '\n']) {
            let escape = match piece.as_bytes().last() {
                Some(b'\\') => "\\\\",
                Some(b'"') => "\\\"",
                Some(b'\n') => "\\n",
                _ => {
                    self.0.push_str(piece);
                    continue;
                }
            };
            // What needs an escape is one byte long.
            self.0.push_str(&piece[..piece.len() - 1]);
            self.0.push_str(escape);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{
        Encoder as _, TextEncoder,
        proto::{Counter, Gauge, LabelPair, Metric, MetricFamily},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::export::metrics;

    /// The same by the `prometheus` crate.
    fn expected(family: &Family, series: &[(Vec<String>, f64)]) -> Vec<u8> {
        let metrics = series.iter().map(|(labels, value)| {
            let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value.clone());
                pair
            });
            let mut metric = Metric::from_label(pairs.collect());
            if family.kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(*value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(*value);
                metric.set_gauge(gauge);
            }
            metric
        });
        let mut all = MetricFamily::default();
        all.set_name(family.name.to_owned());
        all.set_help(family.help.to_owned());
        all.set_field_type(family.kind);
        all.set_metric(metrics.collect());
        let mut text = vec![];
        TextEncoder::new().encode(&[all], &mut text).unwrap();
        text
    }

    fn written(family: &'static Family, series: &[(Vec<String>, f64)]) -> Vec<u8> {
        let mut text = Text::default();
        let mut to = text.family(family);
        for (labels, value) in series {
            let labels: Vec<&dyn Display> = labels.iter().map(|label| label as _).collect();
            to.add(&labels, value);
        }
        text.into_bytes()
    }

    proptest! {
        #[test]
        fn it_is_what_the_prometheus_crate_writes(
            family in 0..metrics::ALL.len(),
            values in prop::collection::vec((prop::array::uniform7("[ -~\\\\\"\nä漢]{0,12}"), any::<f64>()), 1..4),
        ) {
            let family = metrics::ALL[family];
            let series: Vec<(Vec<String>, f64)> = values
                .into_iter()
                .filter(|(_, value)| value.is_finite())
                .map(|(labels, value)| (labels[..family.labels.len()].to_vec(), value))
                .collect();
            prop_assume!(!series.is_empty());
            let (ours, theirs) = (written(family, &series), expected(family, &series));
            prop_assert_eq!(String::from_utf8(ours), String::from_utf8(theirs));
        }
    }

    #[test]
    fn a_family_without_values_is_left_out() {
        assert_eq!(written(&metrics::LOST, &[]), b"");
    }

    #[test]
    fn a_count_is_written_to_the_last_digit() {
        let mut text = Text::default();
        text.family(&metrics::DETECTION_CHANGES).add(&[], u64::MAX);
        let text = String::from_utf8(text.into_bytes()).unwrap();
        assert!(text.ends_with("_total 18446744073709551615\n"), "{text}");
    }

    /// Undoes the escapes of a label's value.
    fn unescaped(text: &str) -> String {
        let mut characters = text.chars();
        let mut plain = String::new();
        while let Some(character) = characters.next() {
            plain.push(match character {
                '\\' => match characters.next() {
                    Some('n') => '\n',
                    Some(other) => other,
                    None => panic!("{text:?} ends in an escape"),
                },
                other => other,
            });
        }
        plain
    }

    #[test]
    fn fuzz_label_value() {
        bolero::check!(name = "label_value").for_each(|value: &[u8]| {
            let value = String::from_utf8_lossy(value);
            let mut text = Text::default();
            text.family(&metrics::LOST).add(&[&value], 7);
            let text = String::from_utf8(text.into_bytes()).unwrap();
            let (head, line) = text.strip_suffix('\n').unwrap().rsplit_once('\n').unwrap();
            assert_eq!(head.lines().count(), 2, "{text:?}");
            let line = line.strip_prefix("splitlock_lost_total{cause=\"").unwrap();
            let inner = line.strip_suffix("\"} 7").unwrap();
            assert_eq!(unescaped(inner), value);
            // No quote is outside an escape.
            assert!(!inner.replace("\\\\", "").replace("\\\"", "").contains('"'));
        });
    }
}
