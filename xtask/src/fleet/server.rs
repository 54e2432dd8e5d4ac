//! A program that serves for as long as the fleet runs.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::interrupt::Interrupt;

/// From its start to its first answer.
const TO_SERVE: Duration = Duration::from_secs(60);
/// One attempt at an answer.
const TO_ANSWER: Duration = Duration::from_secs(5);
/// From the word to end to its end. Prometheus writes what it has in memory.
const TO_END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// Lines of its log that are shown when it fails.
const LOG_LINES: usize = 15;

/// One that runs. It is ended when this value is dropped, and when xtask dies.
pub struct Server {
    name: &'static str,
    process: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it; what it says goes to a file of this folder.
    ///
    /// Its input stays open: one that ends with its input, as what sudo starts cannot be sent a
    /// signal, does so here.
    pub fn start(name: &'static str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file =
            File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let errors = file.try_clone().context("a second handle of the log")?;
        command.stdin(Stdio::piped()).stdout(file).stderr(errors);
        // SAFETY: prctl is async-signal-safe, and nothing is allocated.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { name, process, log })
    }

    /// Waits until this URL has an answer.
    pub fn wait_for(&mut self, url: &str, interrupt: &Interrupt) -> Result<()> {
        let start = Instant::now();
        let ask = || {
            let request = ureq::get(url).config().timeout_global(Some(TO_ANSWER));
            request.build().call()
        };
        while let Err(error) = ask() {
            interrupt.check()?;
            self.check()?;
            if start.elapsed() > TO_SERVE {
                bail!("{url}: {error}; {} says last:\n{}", self.name, self.words());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// An error once it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.process.try_wait().context("cannot wait")? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.words()),
        }
    }

    /// The last lines of its log.
    pub fn words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        if let Ok(None) = self.process.try_wait() {
            // Not of root's processes if this is none; they end with their input.
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        }
        let start = Instant::now();
        while let Ok(None) = self.process.try_wait() {
            if start.elapsed() > TO_END {
                match self.process.kill() {
                    Ok(()) => drop(self.process.wait()),
                    Err(error) => eprintln!("{} does not end: {error}", self.name),
                }
                return;
            }
            thread::sleep(LOOK);
        }
    }
}
