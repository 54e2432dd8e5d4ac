//! The tests on real events: their program, run and reported test by test.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read},
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    port::Port,
    protocol::{AGENT, Report, TESTS},
    test_output::{TestOutput, skipped},
};

/// How long output may come after the program's end: an orphan of it may hold the pipe.
const AFTER_THE_END: Duration = Duration::from_secs(2);

enum Line {
    Output(String),
    Error(String),
}

/// Runs the test program. That tests fail is no error of this function.
pub fn run(port: &Port, args: &[String], environment: &BTreeMap<String, String>) -> Result<()> {
    let mut command = Command::new(TESTS);
    command
        .args(args)
        .args(["--format", "pretty", "--color", "never"])
        .env("SPLITLOCK_AGENT", AGENT)
        .env("SPLITLOCK_RIG", "1")
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut program = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = program.stdout.take().context("stdout is a pipe")?;
    let stderr = program.stderr.take().context("stderr is a pipe")?;
    let (sender, lines) = channel();
    read_lines(stdout, Line::Output, sender.clone());
    read_lines(stderr, Line::Error, sender);

    let mut output = TestOutput::default();
    let mut status = None;
    let status = loop {
        match lines.recv_timeout(AFTER_THE_END) {
            Ok(Line::Output(line)) => {
                println!("{line}");
                for report in output.line(&line) {
                    port.send(&report);
                }
            }
            Ok(Line::Error(line)) => {
                println!("{line}");
                if let Some(report) = skipped(&line) {
                    port.send(&report);
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                break program.wait().context("cannot wait for the tests")?;
            }
            Err(RecvTimeoutError::Timeout) => match status {
                Some(status) => break status,
                None => status = program.try_wait().context("cannot wait for the tests")?,
            },
        }
    };
    port.send(&Report::TestsEnded {
        status: status.to_string(),
        summary: output.summary,
    });
    Ok(())
}

fn read_lines(stream: impl Read + Send + 'static, kind: fn(String) -> Line, sender: Sender<Line>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if sender.send(kind(line.trim_end().to_owned())).is_err() {
                break;
            }
        }
    });
}
