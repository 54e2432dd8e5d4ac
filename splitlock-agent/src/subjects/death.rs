//! Learning of a subject's end, by a pidfd.

use std::{io, os::fd::OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::sync::mpsc::UnboundedSender;
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
    match open(paths, subject)?.map(readable).transpose()? {
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

/// Whether a subject has ended by now, as far as the kernel says; also one that nobody has waited
/// for yet. What `/proc` hides is no proof.
pub fn has_ended(paths: &Paths, subject: SubjectId) -> bool {
    match open(paths, subject) {
        Ok(None) => true,
        Ok(Some(pidfd)) => {
            let mut ready = [PollFd::new(&pidfd, PollFlags::IN)];
            poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count > 0)
        }
        // No descriptor is free: its end is not known.
        Err(_) => false,
    }
}

/// `None` if the subject is gone, or its pid is another's by now.
fn open(paths: &Paths, subject: SubjectId) -> io::Result<Option<OwnedFd>> {
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
        _ => Ok(Some(pidfd)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_living_the_ended_and_the_hidden() {
        let paths = Paths::default();
        let of = |pid| SubjectId {
            pid,
            start_ticks: start_ticks(&paths, pid).unwrap(),
        };
        let own = of(std::process::id());
        assert!(!has_ended(&paths, own));
        let nothing = Paths {
            procfs: "/nonexistent".into(),
            ..Paths::default()
        };
        assert!(!has_ended(&nothing, own), "hidden is not ended");
        let earlier = SubjectId {
            start_ticks: own.start_ticks - 1,
            ..own
        };
        assert!(has_ended(&paths, earlier), "its pid is another's");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let subject = of(child.id());
        assert!(!has_ended(&paths, subject));
        child.kill().unwrap();
        // Nobody has waited for it; its end takes a moment.
        while !has_ended(&paths, subject) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(has_ended(&paths, subject));
    }
}
