//! The worker's side of the keeper.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, recv, shutdown, socketpair,
    },
};
use tokio::{net::UnixStream, sync::oneshot};
use tracing::error;

use super::words::{Heard, Kind, Word, hear};
use crate::{confine::user::User, readiness::readable, subjects::paths::Paths};

/// For the keeper to be there. It takes some milliseconds, and seconds on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// For its end, and that of what it has started.
const ENDING: Duration = Duration::from_secs(1);

/// The keeper, as the worker sees it.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    process: Mutex<Option<Child>>,
    is_up: AtomicBool,
    next: AtomicU64,
    /// Processes that have not ended.
    living: Mutex<HashMap<u64, Living>>,
}

#[derive(Debug)]
struct Living {
    /// Goes when it has ended.
    _ended: oneshot::Sender<()>,
    /// Goes with it.
    _held: Option<Arc<()>>,
}

impl Keeper {
    /// Starts it, from this very program. To be called before rights are given up.
    ///
    /// # Errors
    /// There can be none.
    pub fn start(user: User, paths: &Paths) -> io::Result<Arc<Self>> {
        let (own, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("keeper")
            .args(["--uid", &user.uid.to_string()])
            .args(["--gid", &user.gid.to_string()])
            .args(paths.flags())
            .env_clear()
            .stdin(Stdio::from(other))
            .stdout(Stdio::null());
        let process = command.spawn()?;
        Ok(Arc::new(Self {
            socket: own,
            process: Mutex::new(Some(process)),
            is_up: AtomicBool::new(true),
            next: AtomicU64::new(0),
            living: Mutex::default(),
        }))
    }

    /// Waits until it has given up its rights; gives what it could not give up, in words.
    ///
    /// # Errors
    /// It died, or takes too long.
    pub fn wait(&self) -> io::Result<Vec<String>> {
        self.wait_readable()?;
        let count = match hear(&self.socket)? {
            Some(Heard {
                word: Some(Word::Ready(count)),
                ..
            }) => count,
            _ => return Err(io::Error::other("the keeper did not start")),
        };
        let mut kept = vec![];
        for _ in 0..count.min(32) {
            self.wait_readable()?;
            let mut sentence = [0; 512];
            let (length, _) = recv(&self.socket, &mut sentence[..], RecvFlags::empty())?;
            kept.push(String::from_utf8_lossy(&sentence[..length]).into_owned());
        }
        Ok(kept)
    }

    fn wait_readable(&self) -> io::Result<()> {
        let patience = Timespec {
            tv_sec: PATIENCE.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        let mut ready = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        if poll(&mut ready, Some(&patience))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Begins to listen, in a runtime.
    ///
    /// # Errors
    /// The runtime takes no descriptor.
    pub fn listen(self: &Arc<Self>) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.socket, true)?;
        let socket = readable(self.socket.try_clone()?)?;
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok(mut ready) = socket.readable().await {
                match hear(socket.get_ref()) {
                    Ok(Some(Heard { word, .. })) => {
                        if let Some(Word::Ended(id)) = word {
                            keeper.living().remove(&id);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(None) | Err(_) => break,
                }
            }
            keeper.lose();
        });
        Ok(())
    }

    /// Ends it with all that it has started, and waits for that, but not for long. To be called when the
    /// runtime is gone.
    pub fn finish(&self) {
        // It hears that nobody is there any more.
        let _ = shutdown(&self.socket, Shutdown::Both);
        let process = self.take_process();
        let start = Instant::now();
        if let Some(mut process) = process {
            while matches!(process.try_wait(), Ok(None)) && start.elapsed() < ENDING {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn take_process(&self) -> Option<Child> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.take()
    }

    /// Whether it is there.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    /// Has it start a process, which ends when the result is dropped.
    ///
    /// # Errors
    /// There is no keeper any more, or no descriptor.
    pub fn start_process(self: &Arc<Self>, kind: Kind) -> io::Result<(Process, UnixStream)> {
        if !self.is_up() {
            return Err(io::Error::other("the process that starts them has died"));
        }
        let (own, other) = StdStream::pair()?;
        own.set_nonblocking(true)?;
        let stream = UnixStream::from_std(own)?;
        let id = self.next.fetch_add(1, Relaxed);
        let (sender, ended) = oneshot::channel();
        let living = Living {
            _ended: sender,
            _held: None,
        };
        self.living().insert(id, living);
        if let Err(error) = Word::Start(kind, id).send(&self.socket, Some(other.as_fd())) {
            self.living().remove(&id);
            return Err(error);
        }
        let process = Process {
            keeper: Arc::clone(self),
            id,
            ended,
        };
        Ok((process, stream))
    }

    fn living(&self) -> MutexGuard<'_, HashMap<u64, Living>> {
        // A panic elsewhere leaves the map whole.
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keeper has died, and with it all that it had started.
    fn lose(&self) {
        self.is_up.store(false, Relaxed);
        error!(
            "the process that keeps the right to look into others has died; processes and VMs are named by \
             what the kernel side knows until the agent is started again"
        );
        self.living().clear();
        if let Some(mut process) = self.take_process() {
            // It has closed its socket, so this takes no time; if it does, nobody waits.
            let reap = move || drop(process.wait());
            drop(thread::Builder::new().name("reaper".to_owned()).spawn(reap));
        }
    }
}

/// A process that the keeper has started.
#[derive(Debug)]
pub struct Process {
    keeper: Arc<Keeper>,
    id: u64,
    ended: oneshot::Receiver<()>,
}

impl Process {
    /// Has this be held until it has ended.
    pub fn hold(&self, held: Arc<()>) {
        if let Some(living) = self.keeper.living().get_mut(&self.id) {
            living._held = Some(held);
        }
    }

    /// Ends it. It may take a while where it is stuck in the kernel.
    pub fn kill(&self) {
        // Where the keeper is gone, it is as well.
        let _ = Word::End(self.id).send(&self.keeper.socket, None);
    }

    /// Whether it has ended.
    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        use std::{future::Future as _, pin::Pin};
        Pin::new(&mut self.ended).poll(context).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
