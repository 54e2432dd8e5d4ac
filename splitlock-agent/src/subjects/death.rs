//! Learning of subjects' ends, by pidfds.

use std::{
    collections::HashMap,
    io, mem,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{
    SubjectId,
    paths::Paths,
    process::{all_exit, start_ticks},
};
use crate::readiness::Source;
use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
        poll,
    },
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Ends that are told at a time.
const BATCH: usize = 64;

/// The subjects whose end is waited for: a descriptor for each, and one for all of them.
///
/// A pidfd becomes readable when the last thread of the group has ended, so nothing is counted for
/// the subject after that.
pub struct Deaths {
    epoll: Source<OwnedFd>,
    pidfds: HashMap<u64, (SubjectId, OwnedFd)>,
    /// What the next one is known by.
    token: u64,
    limit: usize,
    /// Those that were gone already.
    gone: Vec<SubjectId>,
}

impl Deaths {
    /// Waits for nobody yet, and for at most `limit` subjects at a time.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub fn new(limit: usize) -> io::Result<Self> {
        Ok(Self {
            epoll: Source::new(epoll::create(CreateFlags::CLOEXEC)?),
            pidfds: HashMap::new(),
            token: 0,
            limit,
            gone: vec![],
        })
    }

    /// Has [`Self::next`] tell of this subject's end; at once if it is gone already.
    ///
    /// # Errors
    /// It lives, and no descriptor is free. Nothing will be told; try again later.
    pub fn watch(&mut self, paths: &Paths, subject: SubjectId) -> io::Result<()> {
        let Some(pidfd) = open(paths, subject)?.filter(|pidfd| !is_readable(pidfd)) else {
            self.gone.push(subject);
            return Ok(());
        };
        if self.pidfds.len() >= self.limit {
            return Err(io::Error::other("too few file descriptors"));
        }
        self.token += 1;
        epoll::add(
            self.epoll.get()?,
            &pidfd,
            EventData::new_u64(self.token),
            EventFlags::IN,
        )?;
        self.pidfds.insert(self.token, (subject, pidfd));
        Ok(())
    }

    /// Those that have ended since; waits until there is one. Nothing is lost if it is not waited
    /// for to the end.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub async fn next(&mut self) -> io::Result<Vec<SubjectId>> {
        if !self.gone.is_empty() {
            return Ok(mem::take(&mut self.gone));
        }
        loop {
            let mut ready = self.epoll.registered()?.readable().await?;
            let mut events = Vec::with_capacity(BATCH);
            epoll::wait(
                ready.get_inner(),
                rustix::buffer::spare_capacity(&mut events),
                Some(&Timespec::default()),
            )?;
            if events.is_empty() {
                ready.clear_ready();
                continue;
            }
            let ended = events
                .iter()
                // Closing the descriptor takes it out.
                .filter_map(|event| self.pidfds.remove(&{ event.data }.u64()))
                .map(|(subject, _)| subject)
                .collect();
            if self.pidfds.is_empty() {
                self.pidfds.shrink_to(BATCH);
            }
            return Ok(ended);
        }
    }
}

/// Whether a subject has ended by now, as far as the kernel says; also one that nobody has waited
/// for yet, or that runs nothing any more: a killed VMM may take a while to let go of its guest. What
/// `/proc` hides is no proof.
pub fn has_ended(paths: &Paths, subject: SubjectId) -> bool {
    match open(paths, subject) {
        Ok(None) => true,
        Ok(Some(pidfd)) => is_readable(&pidfd) || all_exit(paths, subject.pid),
        // No descriptor is free: its end is not known.
        Err(_) => false,
    }
}

fn is_readable(pidfd: &OwnedFd) -> bool {
    let mut ready = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count > 0)
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

    #[tokio::test]
    async fn ends_are_told_also_of_those_that_are_gone() {
        let paths = Paths::default();
        let of = |pid| SubjectId {
            pid,
            start_ticks: start_ticks(&paths, pid).unwrap(),
        };
        let mut deaths = Deaths::new(1).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let subject = of(child.id());
        deaths.watch(&paths, subject).unwrap();
        let own = of(std::process::id());
        assert!(deaths.watch(&paths, own).is_err(), "it is one too many");
        // One that has ended needs no place.
        let earlier = SubjectId {
            start_ticks: own.start_ticks - 1,
            ..own
        };
        deaths.watch(&paths, earlier).unwrap();
        assert_eq!(deaths.next().await.unwrap(), [earlier]);
        child.kill().unwrap();
        assert_eq!(deaths.next().await.unwrap(), [subject]);
        child.wait().unwrap();
        // Its place is free again.
        deaths.watch(&paths, own).unwrap();
        let wait = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, deaths.next()).await.is_err());
    }
}
