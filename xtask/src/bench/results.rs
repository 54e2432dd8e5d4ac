//! Figures of several rounds, and the table of them.

use std::{
    collections::HashMap,
    fmt::{self, Display, Formatter},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One table.
pub struct Section {
    /// Its mark in the page and its name as a file: letters and dashes.
    pub key: String,
    /// Its headline.
    pub title: String,
    /// What is repeated to have it again.
    pub command: String,
    /// On what it was measured.
    pub machine: String,
    /// What the figures are, with what is common to all of them.
    pub unit: String,
    /// One for each thing that was measured; least first where they are compared.
    pub rows: Vec<Row>,
}

/// What was measured of one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The middle one of the figures.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// Median of the differences to what it is compared with, round by round.
    pub over_base: Option<f64>,
}

/// Makes rows of lines such as `{"name": …, "round": 0, KEY: 1.5}`. `base` names what a row is
/// compared with.
pub fn rows(lines: &[Value], key: &str, base: impl Fn(&str) -> &'static str) -> Result<Vec<Row>> {
    let mut names: Vec<&str> = vec![];
    let mut figures: HashMap<(&str, u64), f64> = HashMap::new();
    for line in lines {
        let fields = || {
            Some((
                line["name"].as_str()?,
                line["round"].as_u64()?,
                line[key].as_f64()?,
            ))
        };
        let (name, round, figure) = fields().with_context(|| format!("no figure in {line}"))?;
        if !names.contains(&name) {
            names.push(name);
        }
        figures.insert((name, round), figure);
    }
    let rounds = figures.keys().map(|(_, round)| round + 1).max();
    let of = |name| (0..rounds.unwrap_or(0)).map(move |round| (name, round));
    let mut rows: Vec<Row> = names
        .iter()
        .map(|name| {
            let mut own: Vec<f64> = of(*name)
                .filter_map(|at| figures.get(&at).copied())
                .collect();
            let base = base(name);
            let mut over: Vec<f64> = of(*name)
                .zip(of(base))
                .filter_map(|(at, base)| Some(figures.get(&at)? - figures.get(&base)?))
                .collect();
            Row {
                name: (*name).to_owned(),
                median: median(&mut own),
                least: own.first().copied().unwrap_or(f64::NAN),
                most: own.last().copied().unwrap_or(f64::NAN),
                over_base: (*name != base && !over.is_empty()).then(|| median(&mut over)),
            }
        })
        .collect();
    // What is not compared is of many units, and stays in its order.
    if rows.iter().any(|row| row.over_base.is_some()) {
        rows.sort_by(|a, b| a.median.total_cmp(&b.median));
    }
    Ok(rows)
}

/// The middle one; sorts the figures.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        len if len.is_multiple_of(2) => f64::midpoint(figures[len / 2 - 1], figures[len / 2]),
        len => figures[len / 2],
    }
}

impl Display for Section {
    /// As Markdown.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(
            f,
            "`{}`\n\n{}. {}.\n",
            self.command, self.machine, self.unit
        )?;
        writeln!(f, "| | median | least | most | over its base |")?;
        writeln!(f, "|---|---:|---:|---:|---:|")?;
        for row in &self.rows {
            let over = row
                .over_base
                .map_or_else(String::new, |over| format!("{over:+.1}"));
            writeln!(
                f,
                "| {} | {:.1} | {:.1} | {:.1} | {over} |",
                row.name, row.median, row.least, row.most
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_taken_round_by_round() {
        let line =
            |name: &str, round: u32, ns: f64| json!({"name": name, "round": round, "ns": ns});
        let lines = [
            line("ours", 0, 30.0),
            line("empty", 0, 10.0),
            line("ours", 1, 100.0),
            line("empty", 1, 79.0),
            line("ours", 2, 33.0),
            line("empty", 2, 12.0),
        ];
        let rows = rows(&lines, "ns", |_| "empty").unwrap();
        assert_eq!(rows[0].name, "empty");
        assert_eq!((rows[0].median, rows[0].over_base), (12.0, None));
        let ours = &rows[1];
        assert_eq!((ours.least, ours.median, ours.most), (30.0, 33.0, 100.0));
        assert_eq!(ours.over_base, Some(21.0));
    }

    #[test]
    fn a_line_without_a_figure_is_an_error() {
        assert!(rows(&[json!({"name": "x"})], "ns", |_| "x").is_err());
    }

    #[test]
    fn an_even_number_of_figures_has_a_median_too() {
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&mut []).is_nan());
    }
}
