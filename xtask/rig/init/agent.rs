//! The agent: one run to ask how its hooks are attached, or one that goes on.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail};
use serde_json::Value;

use crate::protocol::{AGENT, AGENT_PORT};

/// Emulated, loading takes seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// From a closed connection to the end of the agent that closed it.
const DYING: Duration = Duration::from_secs(2);

/// Starts the agent, fetches its snapshot and ends it. What it logs goes to the console.
pub fn snapshot(args: &[String]) -> Result<Value> {
    // With the verifier's words on a program that it refuses.
    let (mut agent, snapshot) = start(Ipv4Addr::LOCALHOST, "debug", args)?;
    // It runs; what could fail is of no interest any more.
    let _ = agent.kill();
    let _ = agent.wait();
    Ok(snapshot)
}

/// Starts the agent and fetches its first snapshot. What it logs goes to the console.
pub fn start(address: Ipv4Addr, log_level: &str, args: &[String]) -> Result<(Child, Value)> {
    let mut command = Command::new(AGENT);
    command
        .arg("run")
        .args(["--web.listen-address", &format!("{address}:{AGENT_PORT}")])
        .args(["--log.level", log_level])
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut agent = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stderr = agent.stderr.take().context("stderr is a pipe")?;
    let last_words = thread::spawn(|| relay(stderr));
    match wait_for_snapshot(&mut agent) {
        Ok(snapshot) => Ok((agent, snapshot)),
        Err(error) => Err(explain(error, &mut agent, last_words)),
    }
}

fn wait_for_snapshot(agent: &mut Child) -> Result<Value> {
    let address = (Ipv4Addr::LOCALHOST, AGENT_PORT);
    let start = Instant::now();
    let mut stream = loop {
        if let Ok(stream) = TcpStream::connect(address) {
            break stream;
        }
        if agent.try_wait().context("cannot wait")?.is_some() {
            bail!("it ended");
        }
        if start.elapsed() > DEADLINE {
            bail!("it did not listen on port {AGENT_PORT} within {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(50));
    };
    stream
        .set_read_timeout(Some(DEADLINE))
        .context("read timeout")?;
    // After an answer to HTTP/1.0 a server closes.
    stream
        .write_all(b"GET /api/v1/snapshot HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .context("sending the request")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("reading the answer")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no HTTP answer: {answer:?}"))?;
    serde_json::from_str(body).with_context(|| format!("no snapshot: {head}"))
}

/// Prints what the agent says and returns its last line.
fn relay(stderr: ChildStderr) -> String {
    let mut last = String::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        last = String::from_utf8_lossy(&line).into_owned();
        eprintln!("{last}");
    }
    last
}

/// Adds how the agent ended, or that it did not, and its last words.
fn explain(error: Error, agent: &mut Child, last_words: JoinHandle<String>) -> Error {
    let start = Instant::now();
    let status = loop {
        match agent.try_wait() {
            Ok(Some(status)) => break status.to_string(),
            Ok(None) if start.elapsed() < DYING => thread::sleep(Duration::from_millis(50)),
            Ok(None) => break "it still runs".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    let _ = agent.kill();
    let _ = agent.wait();
    let last_words = last_words.join().unwrap_or_default();
    Error::msg(format!("{error:#} ({status}), saying last: {last_words}"))
}
