//! The side of `selftest` of the child that makes the events.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{self, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::events::Results;
use crate::cli::selftest::EventName;

/// For any one step of a child; on an idle machine each takes well below a second.
const DEADLINE: Duration = Duration::from_secs(60);

/// This very program, even if its file has been replaced meanwhile.
const PROGRAM: &str = "/proc/self/exe";

/// A child. It is killed and reaped when this value is dropped, and by the kernel when the thread that
/// started it ends.
pub struct Child {
    process: process::Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    /// Starts one and waits until it is ready; it has made no event yet.
    ///
    /// # Errors
    /// It did not start, or not in time.
    pub fn start(event: EventName, count: u32) -> Result<Self> {
        let mut process = Command::new(PROGRAM)
            .arg("selftest-event")
            .args([event.name(), &count.to_string()])
            .arg(process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(PROGRAM)?;
        let pipes = (process.stdin.take(), process.stdout.take());
        let (sender, lines) = channel();
        let (Some(stdin), Some(stdout)) = pipes else {
            bail!("the child has no pipes");
        };
        let child = Self {
            process,
            stdin,
            lines,
        };
        // A thread, as a pipe has no read with a deadline. It ends with the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        child.expect("ready")?;
        Ok(child)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has it make its events; it lives on.
    ///
    /// # Errors
    /// It failed, or took too long.
    pub fn run(&mut self) -> Result<Results> {
        self.stdin.write_all(b"go\n").context("telling the child")?;
        self.expect("done")?.parse()
    }

    /// The rest of its next line, which has to begin with `word`.
    fn expect(&self, word: &str) -> Result<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => match line.split_once(' ') {
                Some((first, rest)) if first == word => Ok(rest.to_owned()),
                _ => bail!("the child wrote {line:?} instead of {word:?}"),
            },
            Err(RecvTimeoutError::Timeout) => {
                bail!("the child did not write {word:?} within {DEADLINE:?}")
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the child ended early; its line above says why")
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails for one that has ended, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
