//! Programs that cargo built: where they ended up depends on profile, target and configuration, and
//! cargo tells.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What a run of cargo built.
pub struct Executables {
    command: String,
    messages: Vec<Value>,
}

impl Executables {
    /// Runs cargo.
    ///
    /// # Errors
    /// It fails; it has said why.
    pub fn build(cargo: &mut Command) -> Result<Self> {
        cargo.arg("--message-format=json-render-diagnostics");
        let output = cargo
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start {cargo:?}"))?;
        if !output.status.success() {
            bail!("{cargo:?} failed: {}", output.status);
        }
        Ok(Self {
            command: format!("{cargo:?}"),
            messages: parse(&String::from_utf8_lossy(&output.stdout)),
        })
    }

    /// The program of a target.
    ///
    /// # Errors
    /// Cargo named none.
    pub fn named(&self, name: &str) -> Result<PathBuf> {
        find(&self.messages, name)
            .with_context(|| format!("{} named no program {name}", self.command))
    }
}

fn parse(output: &str) -> Vec<Value> {
    // Build scripts may print other lines.
    output
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn find(messages: &[Value], name: &str) -> Option<PathBuf> {
    messages
        .iter()
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_programs_apart() {
        let messages = parse(
            r#"{"reason":"compiler-artifact","target":{"name":"splitlock_agent"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"real_events"},"executable":"/t/deps/real_events-0123"}
text of a build script
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"splitlock-agent"},"executable":"/t/splitlock-agent","fresh":true}
{"reason":"build-finished","success":true}"#,
        );
        for (name, path) in [
            ("real_events", Some("/t/deps/real_events-0123")),
            ("splitlock-agent", Some("/t/splitlock-agent")),
            ("splitlock_agent", None),
        ] {
            assert_eq!(find(&messages, name), path.map(PathBuf::from), "{name}");
        }
    }
}
