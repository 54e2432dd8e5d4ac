//! The kernel log as a source: a reader of `/dev/kmsg`.
//!
//! Its lines are rate limited and name a thread, so it counts only where no hook does.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};
use splitlock_common::Trap;

pub mod message;
pub mod record;

use message::{LogMessage, Setup, What};
use record::Record;

use crate::readiness::Source;

/// Below `/`, or where the host's `/` is mounted.
const PATH: &str = "dev/kmsg";

/// Longer than any record: the kernel formats one into 8 KiB (`PRINTK_MESSAGE_MAX`, 2 KiB since
/// 6.4), and a read into less than the record fails for good.
const RECORD_MAX: usize = 16 * 1024;

/// One report of a trapped lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which mechanism noticed it.
    pub trap: Trap,
    /// What the kernel says about it.
    pub what: What,
    /// The thread's comm.
    pub comm: String,
    /// The thread.
    pub tid: u32,
}

/// What one round of reading gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The reports, oldest first.
    pub reports: Vec<Report>,
    /// The last line about the set-up of detection.
    pub setup: Option<Setup>,
    /// How often the kernel had overwritten records that were not read yet.
    pub overruns: u64,
    /// Records and split-lock messages that could not be understood.
    pub malformed: u64,
}

impl Batch {
    fn take_in(&mut self, bytes: &[u8]) {
        let Ok(record) = Record::parse(bytes) else {
            self.malformed += 1;
            return;
        };
        match LogMessage::from_record(&record) {
            Ok(Some(LogMessage::Trap {
                trap,
                what,
                comm,
                tid,
                address: _,
            })) => self.reports.push(Report {
                trap,
                what,
                comm,
                tid,
            }),
            Ok(Some(LogMessage::Setup(setup))) => self.setup = Some(setup),
            Ok(_) => {}
            Err(_) => self.malformed += 1,
        }
    }
}

/// The reader.
pub struct KernelLog {
    file: Source<File>,
    buffer: Vec<u8>,
}

impl KernelLog {
    /// Opens the log and reads what is in it already. A container may have the device only below
    /// the host's root.
    ///
    /// # Errors
    /// The file is not there, or not for this user: `kernel.dmesg_restrict` wants CAP_SYSLOG.
    pub fn open(rootfs: &Path) -> io::Result<(Self, Batch)> {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let mut options = File::options();
        options.read(true).custom_flags(nonblocking);
        let file = options
            .open(Path::new("/").join(PATH))
            .or_else(|error| options.open(rootfs.join(PATH)).map_err(|_| error))?;
        let mut log = Self {
            file: Source::new(file),
            buffer: vec![0; RECORD_MAX],
        };
        let history = log.drain()?;
        Ok((log, history))
    }

    /// Waits until there are new records, and reads them.
    pub async fn next(&mut self) -> io::Result<Batch> {
        self.file.registered()?.readable().await?.clear_ready();
        // The readiness is cleared first: a record that comes during the reading sets it again.
        self.drain()
    }

    /// Each read gives one record, `EPIPE` once where records were overwritten.
    fn drain(&mut self) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut file = self.file.get()?;
        loop {
            match file.read(&mut self.buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(len) => batch.take_in(&self.buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(batch),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {
                    batch.overruns += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_reports() {
        let text =
            "x86/split lock detection: #AC: qemu/77 took a split_lock trap at address: 0x401000";
        let mut batch = Batch::default();
        batch.take_in(format!("4,100,5000,-;{text}\n").as_bytes());
        assert_eq!(
            batch.reports,
            [Report {
                trap: Trap::SplitLock,
                what: What::Took,
                comm: "qemu".to_owned(),
                tid: 77,
            }]
        );
        // Facility 1: a user wrote it to /dev/kmsg.
        batch.take_in(format!("12,101,5000,-;{text}\n").as_bytes());
        batch.take_in(b"6,102,5000,-;eth0: link is up\n");
        assert_eq!(batch.reports.len(), 1);
        assert_eq!(batch.malformed, 0);
        batch.take_in(b"no record\n");
        assert_eq!(batch.malformed, 1);
    }
}
