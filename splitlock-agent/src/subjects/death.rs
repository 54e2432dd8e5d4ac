//! Learning of a subject's end, by a pidfd.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{io::unix::AsyncFd, sync::mpsc::UnboundedSender};
use tracing::warn;

use super::{SubjectId, paths::Paths, process::start_ticks};
use crate::readiness::readable;

/// Sends `subject` to `deaths` once it has ended: at once if it is gone already.
///
/// A pidfd becomes readable when the last thread of the group has ended, so nothing is counted
/// for the subject after that.
///
/// # Errors
/// No descriptor is free. Nothing will be sent; try again later.
pub fn watch(
    paths: &Paths,
    subject: SubjectId,
    deaths: &UnboundedSender<SubjectId>,
) -> io::Result<()> {
    let deaths = deaths.clone();
    match open(paths, subject)? {
        Some(pidfd) => {
            tokio::spawn(async move {
                if let Err(error) = pidfd.readable().await {
                    warn!(pid = subject.pid, %error, "waiting for its end failed; taken as ended");
                }
                // The agent may be ending itself.
                let _ = deaths.send(subject);
            });
        }
        None => {
            let _ = deaths.send(subject);
        }
    }
    Ok(())
}

/// `None` if the subject is gone, or its pid is another's by now.
fn open(paths: &Paths, subject: SubjectId) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let Some(pid) = i32::try_from(subject.pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        // The pid is nobody's, or by now that of another group's thread: EINVAL, from 6.16 on
        // ENOENT.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match start_ticks(paths, subject.pid) {
        Ok(ticks) if ticks != subject.start_ticks => Ok(None),
        // It lives, as the pidfd says, whatever `/proc` hides: if it is gone by now, the pidfd tells.
        _ => readable(pidfd).map(Some),
    }
}
