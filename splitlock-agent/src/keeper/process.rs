//! The keeper itself: one thread, which waits for words and for its children's ends.

use std::{
    fs, io,
    os::fd::{BorrowedFd, OwnedFd},
    panic,
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getppid, pidfd_open,
        pidfd_send_signal, set_parent_process_death_signal, setrlimit, waitpid,
    },
    stdio::{dup2_stdin, dup2_stdout},
};

use super::{
    KeeperOptions, resolver,
    words::{Heard, Kind, Word, hear},
};
use crate::{
    code::child,
    confine::{helpers, user::User},
    subjects::paths::Paths,
};

/// Children at a time; some may hang in the kernel for a while after their end was asked for.
const CHILDREN: usize = 48;
/// Raises the kernel's inclination to end this process, and its children, when memory runs out, to the
/// most: counts go on without names.
const FIRST_TO_GO: &str = "1000";

/// For the end of one at the end of all.
const HANG: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

struct Child {
    id: u64,
    pid: Pid,
    pidfd: OwnedFd,
}

/// Keeps, until the worker has gone. Standard input is the socket to it.
pub fn run(options: &KeeperOptions) -> ExitCode {
    prepare();
    let user = User {
        uid: options.uid,
        gid: options.gid,
    };
    let paths = options.paths.paths();
    let kept = helpers::confine_keeper(user);
    // What it may be is told with the change of user, which clears this (`commit_creds`).
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if getppid().is_none() {
        return ExitCode::FAILURE;
    }
    let socket = rustix::stdio::stdin();
    if say_ready(socket, &kept).is_err() {
        return ExitCode::FAILURE;
    }
    match keep(socket, &paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What takes rights, or would be in a child's way.
fn prepare() {
    // Nothing of the agent's is here but its ends of the conversation.
    // SAFETY: nobody here has a descriptor above standard error.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    // A service manager sends these to all of a service: the worker says when it ends.
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: SIG_IGN is no function that could run.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    name(c"splitlock-keep");
    let _ = fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
    for resource in [Resource::Fsize, Resource::Core] {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = setrlimit(resource, none);
    }
    // Its words would be of no use: the worker tells that it died.
    panic::set_hook(Box::new(|_| {}));
}

fn name(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

fn say_ready(socket: BorrowedFd<'_>, kept: &[String]) -> io::Result<()> {
    Word::Ready(kept.len() as u64).send(socket, None)?;
    for sentence in kept {
        let end = sentence.floor_char_boundary(500);
        rustix::net::send(
            socket,
            &sentence.as_bytes()[..end],
            rustix::net::SendFlags::NOSIGNAL,
        )?;
    }
    Ok(())
}

fn keep(socket: BorrowedFd<'_>, paths: &Paths) -> io::Result<()> {
    let mut children: Vec<Child> = vec![];
    loop {
        let mut ready: Vec<PollFd<'_>> = children
            .iter()
            .map(|child| PollFd::new(&child.pidfd, PollFlags::IN))
            .collect();
        ready.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let events: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(ready);
        let has_word = events.last() == Some(&true);
        let mut ended = events.iter();
        let mut gone = vec![];
        children.retain(|child| {
            let has_ended = ended.next() == Some(&true)
                && matches!(
                    waitpid(Some(child.pid), WaitOptions::NOHANG),
                    Ok(Some(_)) | Err(Errno::CHILD)
                );
            if has_ended {
                gone.push(child.id);
            }
            !has_ended
        });
        for id in gone {
            Word::Ended(id).send(socket, None)?;
        }
        if !has_word {
            continue;
        }
        // With the worker goes all of this; the children are told by the kernel.
        let Some(Heard { word, with }) = hear(socket)? else {
            end_all(&children);
            return Ok(());
        };
        match (word, with) {
            (Some(Word::Start(kind, id)), Some(own)) => {
                let started = if children.len() < CHILDREN {
                    start(kind, own, paths)
                } else {
                    Err(io::ErrorKind::QuotaExceeded.into())
                };
                match started {
                    Ok((pid, pidfd)) => children.push(Child { id, pid, pidfd }),
                    Err(_) => Word::Ended(id).send(socket, None)?,
                }
            }
            (Some(Word::End(id)), _) => {
                if let Some(child) = children.iter().find(|child| child.id == id) {
                    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
                }
            }
            // Nothing else is for the keeper.
            _ => {}
        }
    }
}

/// Ends the children, and waits for those that do not hang.
fn end_all(children: &[Child]) {
    for child in children {
        let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    }
    for child in children {
        let mut ready = [PollFd::new(&child.pidfd, PollFlags::IN)];
        if poll(&mut ready, Some(&HANG)).is_ok_and(|count| count > 0) {
            let _ = waitpid(Some(child.pid), WaitOptions::NOHANG);
        }
    }
}

fn start(kind: Kind, own: OwnedFd, paths: &Paths) -> io::Result<(Pid, OwnedFd)> {
    // SAFETY: this process has one thread, so the child finds no lock held.
    let forked = unsafe { libc::fork() };
    if forked < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(pid) = Pid::from_raw(forked) else {
        // No way leads back into the keeper's loop.
        let _ = panic::catch_unwind(|| be(kind, own, paths));
        std::process::exit(1);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok((pid, pidfd)),
        Err(error) => {
            // Its end of the conversation ends with this, so it does as well.
            drop(own);
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(error.into())
        }
    }
}

/// A child's whole life.
fn be(kind: Kind, own: OwnedFd, paths: &Paths) {
    if dup2_stdin(&own).is_err() || dup2_stdout(&own).is_err() {
        return;
    }
    drop(own);
    // The keeper's socket was standard input; what is left are pidfds of the others.
    // SAFETY: nobody who has one uses it after this.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    match kind {
        Kind::Resolver => {
            name(c"splitlock-who");
            // Where the kernel has no filters, the keeper has told so.
            let _ = helpers::confine_reader(false);
            let _ = resolver::serve(paths);
        }
        Kind::Symbolizer => {
            name(c"splitlock-code");
            child::run_confined(paths.clone());
        }
    }
}
