//! The event log: a line for each record, to standard output as JSON or to the journal.
//!
//! A thread of its own writes, as whoever reads may be slow. What it cannot take is counted.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tracing::warn;

pub mod journal;
pub mod line;

pub use self::line::Line;

/// Lines that wait to be written.
const AHEAD: usize = 1024;

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON on standard output, one object a line.
    Json,
    /// systemd's journal, with a field for each value.
    Journald,
}

/// Writes lines.
#[derive(Debug)]
pub struct EventLog {
    lines: SyncSender<Line>,
    failed: Arc<AtomicU64>,
}

impl EventLog {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// There is no journal, or no thread.
    pub fn start(form: Form) -> io::Result<Self> {
        if form == Form::Journald {
            journal::check()?;
        }
        let (lines, receiver) = sync_channel(AHEAD);
        let failed = Arc::new(AtomicU64::new(0));
        let failures = Arc::clone(&failed);
        thread::Builder::new()
            .name("event-log".to_owned())
            .spawn(move || write_all(form, &receiver, &failures))?;
        Ok(Self { lines, failed })
    }

    /// Has a line written; false if too many wait already.
    pub fn write(&self, line: Line) -> bool {
        match self.lines.try_send(line) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Lines that could not be written, since this was asked last.
    pub fn take_failed(&self) -> u64 {
        self.failed.swap(0, Ordering::Relaxed)
    }
}

/// Writes until the agent ends.
fn write_all(form: Form, lines: &Receiver<Line>, failed: &AtomicU64) {
    let mut has_failed = false;
    for line in lines {
        let written = match form {
            Form::Json => to_stdout(&line),
            Form::Journald => journal::send(&line),
        };
        if let Err(error) = written {
            failed.fetch_add(1, Ordering::Relaxed);
            // Once, until it works again: the reason is the same for all.
            if !has_failed {
                warn!(%error, "the event log cannot be written; the lines are counted as lost");
            }
            has_failed = true;
        } else {
            has_failed = false;
        }
    }
}

fn to_stdout(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    // One write, so that a pipe has whole lines.
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}
