//! A program that measures, and says so in lines of JSON.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command;

/// Runs one, with root's rights, which loading BPF programs needs; gives its lines.
///
/// # Errors
/// Nobody has the rights, the program fails, or a line is no JSON.
pub fn run(measurement: &mut Command) -> Result<Vec<Value>> {
    if !command::is_root() {
        bail!("measuring needs root's rights");
    }
    let output = measurement
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {measurement:?}"))?;
    if !output.status.success() {
        bail!("{measurement:?} failed: {}", output.status);
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(output: &str) -> Result<Vec<Value>> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json() {
        assert_eq!(parse("{\"a\": 1}\n{}\n").unwrap().len(), 2);
        assert!(parse("text").is_err());
    }
}
