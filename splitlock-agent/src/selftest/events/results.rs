//! What a maker of events counted of them, as it goes over the pipe.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error};

/// Counts by name, as their maker saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results(BTreeMap<String, u64>);

impl Results {
    /// The count called `name`.
    ///
    /// # Panics
    ///
    /// If this event reports no such count.
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        match self.find(name) {
            Some(count) => count,
            None => panic!("no count {name:?} among {self}"),
        }
    }

    /// The count called `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// All counts, zeros too, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// Adds `count` to `name`, which appears even when that is 0.
    pub fn add(&mut self, name: &str, count: u64) {
        *self.0.entry(name.to_owned()).or_default() += count;
    }

    /// Adds every count of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in other.iter() {
            self.add(name, count);
        }
    }
}

/// `KEY=VALUE` pairs with a space between them.
impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count)) in self.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{name}={count}")?;
        }
        Ok(())
    }
}

/// The inverse of [`Display`](fmt::Display).
impl FromStr for Results {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.split_whitespace()
            .map(|pair| {
                let (name, count) = pair
                    .split_once('=')
                    .with_context(|| format!("{pair:?} is not KEY=VALUE"))?;
                Ok((
                    name.to_owned(),
                    count.parse().with_context(|| format!("in {pair:?}"))?,
                ))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_event_results() {
        bolero::check!(name = "event_results").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            if let Ok(results) = text.parse::<Results>() {
                assert_eq!(results.to_string().parse::<Results>().unwrap(), results);
            }
        });
    }
}
