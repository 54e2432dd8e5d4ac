//! Figures that a test measures beside what it checks, for `cargo xtask bench`.

use std::fmt::{self, Display, Formatter};

use serde_json::json;

/// Figures by name.
#[derive(Debug, Default)]
pub struct Figures(Vec<(String, f64)>);

impl Figures {
    /// Adds one.
    pub fn add(&mut self, name: impl Into<String>, figure: f64) {
        self.0.push((name.into(), figure));
    }

    /// Writes them to standard output, one JSON object a line.
    pub fn print(&self, round: u32) {
        for (name, figure) in &self.0 {
            println!(
                "{}",
                json!({"name": name, "round": round, "figure": figure})
            );
        }
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, figure) in &self.0 {
            writeln!(f, "{figure:>12.1} {name}")?;
        }
        Ok(())
    }
}

/// The middle one.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
