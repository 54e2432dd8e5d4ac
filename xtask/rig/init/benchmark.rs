//! The benchmark: its program, run and reported line by line.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    port::Port,
    protocol::{BENCHMARK, Report},
};

/// Runs it. What it says on standard error goes to the console.
pub fn run(port: &Port, args: &[String]) -> Result<()> {
    let mut command = Command::new(BENCHMARK);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut program = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = program.stdout.take().context("stdout is a pipe")?;
    // Sending a line costs instructions, so none is sent while the program measures.
    let lines = BufReader::new(stdout)
        .lines()
        .collect::<Result<Vec<String>, _>>()
        .context("reading the benchmark's results")?;
    let status = program.wait().context("cannot wait for the benchmark")?;
    for line in lines {
        let line = serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?;
        port.send(&Report::Measured { line });
    }
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}
