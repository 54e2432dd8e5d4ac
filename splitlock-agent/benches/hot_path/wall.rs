//! Nanoseconds of CPU for a guest's way to the VMM and back, with one tool at work at a time.
//!
//! It says what a tool costs the guest: its program, the tracepoint that it turns on, and what it does
//! there and then. The CPU time is the VMM's; what a tool does in its own process is not in it.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use splitlock_agent::host::tracefs::Tracefs;

use super::{contenders, guest};

/// From a tool's start to its being at work.
const STARTING: Duration = Duration::from_millis(1500);

const NOTHING: &str = "nothing attached";

/// Prints one line for each tool and round. `tools` are pairs of a name and a command, its words
/// separated by a tab.
pub fn measure(rounds: usize, count: u64, tools: &[&str]) -> Result<()> {
    if let Tracefs::Missing(reason) = contenders::tracefs() {
        eprintln!("tools may refuse to work: {reason}");
    }
    let mut contenders = vec![(NOTHING, None)];
    for tool in tools.chunks(2) {
        let [name, words] = tool else {
            anyhow::bail!("a tool is a name and a command");
        };
        contenders.push((name, Some(*words)));
    }
    for round in 0..rounds {
        contenders.rotate_left(1);
        for (name, words) in &contenders {
            let mut tool = words.map(|words| Tool::start(name, words)).transpose()?;
            let start = cpu_time();
            guest::write_to_port(count)?;
            let nanoseconds = (cpu_time() - start).as_nanos() as f64 / count as f64;
            if let Some(tool) = &mut tool {
                tool.check()?;
            }
            println!(
                "{}",
                json!({"name": name, "round": round, "nanoseconds": nanoseconds})
            );
        }
    }
    Ok(())
}

/// CPU time of this process, the guest's included.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// A tool at work; it ends with this value.
struct Tool {
    name: String,
    process: Child,
}

impl Tool {
    fn start(name: &str, words: &str) -> Result<Self> {
        let mut words = words.split('\t');
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        thread::sleep(STARTING);
        let mut tool = Self {
            name: name.to_owned(),
            process,
        };
        tool.check()?;
        Ok(tool)
    }

    /// One that has ended measured nothing.
    fn check(&mut self) -> Result<()> {
        let ended = self.process.try_wait()?;
        ensure!(ended.is_none(), "{} ended: {ended:?}", self.name);
        Ok(())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
