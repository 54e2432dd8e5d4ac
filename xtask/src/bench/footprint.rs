//! What the agent needs at rest: time until it serves, memory, its own and the kernel's, and how often
//! it wakes up.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{
    machine::this_machine,
    results::{Section, rows},
};
use crate::{
    build::{self, BuildOptions},
    steps::Steps,
    workspace::Workspace,
};

/// From serving to rest.
const SETTLING: Duration = Duration::from_secs(1);

/// Of rest.
const RESTING: Duration = Duration::from_secs(5);

/// Starts the release build again and again.
pub fn measure(workspace: &Workspace, steps: &mut Steps, rounds: u32) -> Result<Section> {
    let agent = build::build(workspace, steps, &BuildOptions { release: true })?;
    let lines = steps.run("measure the agent at rest", || {
        let mut lines = vec![];
        for round in 0..rounds {
            lines.extend(one(&agent, round)?);
        }
        Ok(lines)
    })?;
    Ok(Section {
        key: "footprint".to_owned(),
        title: "The agent at rest".to_owned(),
        command: format!("cargo xtask bench footprint --rounds {rounds}"),
        machine: this_machine(),
        unit: format!("The release build, started {rounds} times"),
        rows: rows(&lines, "figure", |_| "")?,
    })
}

fn one(agent: &Path, round: u32) -> Result<Vec<Value>> {
    let start = Instant::now();
    let mut command = Command::new(agent);
    command
        .args(["run", "--web.listen-address", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let process = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut running = Running(process);
    let stderr = running.0.stderr.take().context("stderr is a pipe")?;
    let mut lines = BufReader::new(stderr).lines();
    loop {
        match lines.next() {
            Some(line) if line.as_ref().is_ok_and(|line| line.contains("serving on")) => break,
            Some(line) => drop(line.context("reading the agent's log")?),
            None => bail!("{command:?} ended before it served"),
        }
    }
    let ready = start.elapsed();
    // It must not meet a closed pipe.
    thread::spawn(move || lines.for_each(drop));
    thread::sleep(SETTLING);
    let before = sleeps(running.0.id())?;
    thread::sleep(RESTING);
    let wakeups = sleeps(running.0.id())? - before;
    let file = format!("/proc/{}/status", running.0.id());
    let status = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let mib = |field| {
        kibibytes(&status, field)
            .map(|kib| kib / 1024.0)
            .with_context(|| format!("{file} has no {field}"))
    };
    let line = |name: &str, figure: f64| json!({"name": name, "round": round, "figure": figure});
    Ok(vec![
        line(
            "milliseconds from the start to serving",
            ready.as_secs_f64() * 1000.0,
        ),
        line("MiB resident", mib("VmRSS")?),
        line("MiB resident at most so far", mib("VmHWM")?),
        line(
            "MiB of the kernel's memory for maps",
            kernel_bytes(running.0.id())? as f64 / f64::from(1 << 20),
        ),
        line(
            &format!("wake-ups in {} s", RESTING.as_secs()),
            wakeups as f64,
        ),
    ])
}

/// How often the threads of a process went to sleep: after each waking up.
fn sleeps(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let file = task.context("a thread")?.path().join("status");
        // The thread may have ended.
        let status = fs::read_to_string(file).unwrap_or_default();
        sum += field(&status, "voluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(sum)
}

/// Bytes of all BPF maps that a process holds, as the kernel counts them.
fn kernel_bytes(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let text = fs::read_to_string(entry.context("a descriptor")?.path()).unwrap_or_default();
        if let (Some(id), Some(bytes)) = (field(&text, "map_id"), field(&text, "memlock")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?
        .trim()
        .parse()
        .ok()
}

fn kibibytes(status: &str, field: &str) -> Option<f64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()
}

/// It is killed when this value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_status_are_found() {
        let status = "VmHWM:\t   36500 kB\nVmRSS:\t   12288 kB\n";
        assert_eq!(kibibytes(status, "VmRSS"), Some(12288.0));
        assert_eq!(kibibytes(status, "VmSwap"), None);
        let fdinfo = "map_id:\t7\nmemlock:\t8192\n";
        assert_eq!(field(fdinfo, "memlock"), Some(8192));
        assert_eq!(field(fdinfo, "map"), None);
    }
}
