//! One process that looks at addresses, and those that have not ended yet.

use std::{
    ffi::OsString,
    future::{pending, poll_fn},
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
};

use super::{
    turns::Group,
    wire::{LINE_LIMIT, Reply, Request},
};
use crate::{
    keeper::{self, Keeper, Kind},
    readiness::readable,
};

/// Processes that may be there without having ended, stuck in the kernel, as one is that reads what
/// a file system of a tenant's own (FUSE) does not give.
const ENDING: usize = 8;
/// Those of one group, so that no tenant takes the last one from others.
const ENDING_OF_GROUP: usize = 2;

/// What starts processes, and waits for their ends.
#[derive(Debug)]
pub struct Workers {
    starter: Starter,
    ending: Vec<Ending>,
}

#[derive(Debug)]
enum Starter {
    /// Children of this process.
    Command(Vec<OsString>),
    /// Children of the keeper's.
    Keeper(Arc<Keeper>),
}

/// A process that was killed, or will be.
#[derive(Debug)]
struct Ending {
    process: Process,
    /// Whose question it was at.
    group: Option<Group>,
}

#[derive(Debug)]
enum Process {
    /// With a descriptor that is readable when it has ended.
    Own(Child, AsyncFd<OwnedFd>),
    Kept(keeper::Process),
}

/// A process.
#[derive(Debug)]
pub struct Worker {
    ending: Ending,
    stream: UnixStream,
    /// What is yet to be written.
    unsaid: Vec<u8>,
    /// What was read, up to a line's end.
    heard: Vec<u8>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// It said something.
    Said(Box<Reply>),
    /// It can be heard no more, or says what nobody can understand.
    Ended,
}

impl Workers {
    /// Starts this command.
    pub const fn new(command: Vec<OsString>) -> Self {
        Self {
            starter: Starter::Command(command),
            ending: vec![],
        }
    }

    /// Has the keeper start them.
    pub const fn of_keeper(keeper: Arc<Keeper>) -> Self {
        Self {
            starter: Starter::Keeper(keeper),
            ending: vec![],
        }
    }

    /// Starts a process. Its parent, for the kernel's signal at a parent's death, is the thread that
    /// calls this (`PR_SET_PDEATHSIG`): a thread of the runtime, which lives as long as that.
    ///
    /// # Errors
    /// There can be none.
    pub fn start(&self) -> io::Result<Worker> {
        if self.ending.len() >= ENDING {
            return Err(io::Error::other("too many of them hang in the kernel"));
        }
        let (process, stream) = match &self.starter {
            Starter::Command(command) => start(command)?,
            Starter::Keeper(keeper) => {
                let (process, stream) = keeper.start_process(Kind::Symbolizer)?;
                (Process::Kept(process), stream)
            }
        };
        Ok(Worker {
            ending: Ending {
                process,
                group: None,
            },
            stream,
            unsaid: vec![],
            heard: vec![],
        })
    }

    /// Whether as many processes hang at questions of this group as may.
    pub fn hang(&self, group: Group) -> bool {
        let of_group = self
            .ending
            .iter()
            .filter(|ending| ending.group == Some(group));
        of_group.count() >= ENDING_OF_GROUP
    }

    /// Ends a process, which was at a question of this group.
    pub fn end(&mut self, worker: Worker, group: Option<Group>) {
        let mut ending = worker.ending;
        ending.group = group;
        ending.process.kill();
        self.ending.push(ending);
    }

    /// Counts a process among those that end, and does not end it.
    #[cfg(test)]
    pub fn hold(&mut self, worker: Worker, group: Group) {
        let mut ending = worker.ending;
        ending.group = Some(group);
        // Its end of the conversation stays open, or it would end by itself.
        std::mem::forget(worker.stream);
        self.ending.push(ending);
    }

    /// Whether every process that was to end has ended.
    #[cfg(test)]
    pub const fn are_gone(&self) -> bool {
        self.ending.is_empty()
    }

    /// Waits for one to end; for ever where none is about to.
    pub async fn reap(&mut self) {
        if self.ending.is_empty() {
            return pending().await;
        }
        poll_fn(|context| {
            let ended = self
                .ending
                .iter_mut()
                .position(|ending| ending.process.poll_ended(context).is_ready());
            match ended {
                Some(ended) => {
                    // Dropping it waits for it.
                    self.ending.swap_remove(ended);
                    Poll::Ready(())
                }
                None => Poll::Pending,
            }
        })
        .await;
    }
}

impl Process {
    fn kill(&mut self) {
        match self {
            Self::Own(process, _) => drop(process.kill()),
            Self::Kept(process) => process.kill(),
        }
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Own(_, pidfd) => pidfd.poll_read_ready(context).map(drop),
            Self::Kept(process) => process.poll_ended(context),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Self::Own(process, _) = self {
            let _ = process.try_wait();
        }
    }
}

fn start(command: &[OsString]) -> io::Result<(Process, UnixStream)> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::other("no program"))?;
    let (own, other) = StdStream::pair()?;
    own.set_nonblocking(true)?;
    let stream = UnixStream::from_std(own)?;
    let mut process = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(other.try_clone()?)))
        .stdout(Stdio::from(OwnedFd::from(other)))
        .spawn()?;
    match watch(&process) {
        Ok(pidfd) => Ok((Process::Own(process, pidfd), stream)),
        Err(error) => {
            // Not waited for, it would stay as a zombie.
            let _ = process.kill();
            let _ = process.wait();
            Err(error)
        }
    }
}

impl Worker {
    /// Says something, as soon as it can be heard.
    pub fn ask(&mut self, request: &Request) {
        self.unsaid = serde_json::to_vec(request).unwrap_or_default();
        self.unsaid.push(b'\n');
        self.write();
    }

    /// What happens next; for ever nothing where there is no process. Dropping it loses nothing.
    pub async fn next(worker: &mut Option<Self>) -> Event {
        match worker {
            Some(worker) => worker.hear().await,
            None => pending().await,
        }
    }

    async fn hear(&mut self) -> Event {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return match Reply::read(&line) {
                    Ok(reply) => Event::Said(Box::new(reply)),
                    Err(_) => Event::Ended,
                };
            }
            if self.heard.len() > LINE_LIMIT {
                return Event::Ended;
            }
            let interest = if self.unsaid.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            if self.stream.ready(interest).await.is_err() {
                return Event::Ended;
            }
            self.write();
            let mut part = [0; 4096];
            match self.stream.try_read(&mut part) {
                Ok(count) if count > 0 => self.heard.extend(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return Event::Ended,
            }
        }
    }

    /// Writes what can be written. If nobody is there to read it, reading tells.
    fn write(&mut self) {
        while !self.unsaid.is_empty() {
            match self.stream.try_write(&self.unsaid) {
                Ok(count) => drop(self.unsaid.drain(..count)),
                Err(_) => return,
            }
        }
    }
}

/// Has the end of a process be heard of.
fn watch(process: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = pidfd_open(Pid::from_child(process), PidfdFlags::empty())?;
    readable(pidfd)
}
