//! The serial port for reports.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    sync::Mutex,
};

use anyhow::{Context as _, Result};

use crate::protocol::Report;

/// The second serial port, seen from inside.
const REPORT_PORT: &str = "/dev/ttyS1";

/// The open port. Reports of several threads do not mix.
pub struct Port(Mutex<File>);

impl Port {
    /// Opens it; the kernel closes it not before the process's end.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .open(REPORT_PORT)
            .with_context(|| format!("cannot open {REPORT_PORT}"))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Sends one report; the host misses it if that fails, and says so.
    pub fn send(&self, report: &Report) {
        let mut line = match serde_json::to_vec(report) {
            Ok(line) => line,
            Err(error) => return eprintln!("rig-init: {error}: {report:?}"),
        };
        line.push(b'\n');
        let mut file = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Err(error) = file.write_all(&line) {
            eprintln!("rig-init: {REPORT_PORT}: {error}: {report:?}");
        }
    }

    /// Waits until the last byte has left: what is in the port's buffer goes down with the machine.
    pub fn drain(&mut self) {
        let file = self
            .0
            .get_mut()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Err(error) = rustix::termios::tcdrain(&*file) {
            eprintln!("rig-init: {REPORT_PORT}: {error}");
        }
    }
}
