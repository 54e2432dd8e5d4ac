//! Sockets to listen on: opened here, or handed over by the service manager.

use std::{
    env, fmt, fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::{
        fd::{AsFd, FromRawFd as _, OwnedFd, RawFd},
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
        },
    },
    path::{Path, PathBuf},
    task::{Context as Task, Poll},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
    },
};
use tokio::net::{TcpListener, UnixListener};

use super::{clients::STALL_TIME, peer::Peer, stream::Stream};

/// Those that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// What the kernel keeps for a client that does not read; it doubles this for its own needs.
const SEND_BUFFER: usize = 64 * 1024;
/// What it keeps of requests that the agent does not read yet, doubled likewise.
const RECEIVE_BUFFER: usize = 16 * 1024;
/// Who may connect to a Unix socket: the agent's user, and its group.
const SOCKET_MODE: u32 = 0o660;
/// The first descriptor that a service manager hands over (`sd_listen_fds`).
const FIRST_HANDED: RawFd = 3;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket's file.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(StdTcpListener),
    /// In this host's file system.
    Unix(StdUnixListener),
}

impl Listener {
    /// Opens one; needs no runtime.
    ///
    /// # Errors
    /// The address is in use, not this machine's, or not for this user.
    pub fn open(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => open_tcp(*address).map(Self::Tcp),
            ListenAddress::Unix(path) => open_unix(path).map(Self::Unix),
        }
    }

    /// Takes those that the service manager has opened. To be called once, before there are other
    /// threads: the variables that tell of them go.
    ///
    /// # Errors
    /// There is none, or one of another kind.
    pub fn handed() -> Result<Vec<Self>> {
        let number = |name: &str| env::var(name).ok()?.parse::<u32>().ok();
        let (pid, count) = (number("LISTEN_PID"), number("LISTEN_FDS"));
        ensure!(
            pid == Some(std::process::id()) && count.is_some_and(|count| count > 0),
            "--web.systemd-socket: no socket was handed over (LISTEN_PID, LISTEN_FDS); the service \
             needs a socket unit"
        );
        let last = FIRST_HANDED + count.unwrap_or_default().min(64).cast_signed();
        (FIRST_HANDED..last)
            .map(|number| {
                // SAFETY: whoever set LISTEN_PID to this process opened these for it, and nobody else
                // here takes them: this is called once.
                let socket = unsafe { OwnedFd::from_raw_fd(number) };
                Self::of(socket).with_context(|| format!("the handed descriptor {number}"))
            })
            .collect()
    }

    fn of(socket: OwnedFd) -> Result<Self> {
        // The helpers that the agent starts are not to have it.
        fcntl_setfd(&socket, FdFlags::CLOEXEC).context("it is not open")?;
        let listens = sockopt::socket_acceptconn(&socket).context("it is no socket")?;
        ensure!(
            listens && sockopt::socket_type(&socket)? == SocketType::STREAM,
            "it is no socket that streams are accepted on (ListenStream=)"
        );
        rustix::io::ioctl_fionbio(&socket, true)?;
        let domain = sockopt::socket_domain(&socket)?;
        if domain == AddressFamily::UNIX {
            return Ok(Self::Unix(socket.into()));
        }
        ensure!(
            domain == AddressFamily::INET || domain == AddressFamily::INET6,
            "it is neither of TCP nor a Unix socket"
        );
        bound_buffers(&socket)?;
        Ok(Self::Tcp(socket.into()))
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new("(unnamed)"));
                Ok(ListenAddress::Unix(path.to_owned()))
            }
        }
    }

    /// The same in a runtime.
    ///
    /// # Errors
    /// The runtime cannot wait for it.
    pub fn wait(self) -> io::Result<Waiting> {
        match self {
            Self::Tcp(listener) => TcpListener::from_std(listener).map(Waiting::Tcp),
            Self::Unix(listener) => UnixListener::from_std(listener).map(Waiting::Unix),
        }
    }
}

/// A socket whose connections are waited for.
pub enum Waiting {
    /// Of TCP.
    Tcp(TcpListener),
    /// In this host's file system.
    Unix(UnixListener),
}

impl Waiting {
    /// The next connection.
    pub fn poll_accept(&self, task: &mut Task<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(task)
                .map_ok(|(stream, address)| (Stream::Tcp(stream), Peer::from(address.ip()))),
            Self::Unix(listener) => listener.poll_accept(task).map_ok(|(stream, _)| {
                let uid = stream.peer_cred().ok().map(|who| who.uid());
                (Stream::Unix(stream), Peer::User(uid))
            }),
        }
    }
}

/// Connections inherit the options: the kernel clones the listener's socket (`sk_clone_lock`).
fn open_tcp(address: SocketAddr) -> io::Result<StdTcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = new_socket(family)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bound_buffers(&socket)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

fn bound_buffers(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    // Also once the agent has closed a connection: else the kernel offers the rest of the last
    // answer for minutes to a client that does not read.
    let milliseconds = u32::try_from(STALL_TIME.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&socket, milliseconds)?;
    Ok(())
}

fn open_unix(path: &Path) -> io::Result<StdUnixListener> {
    remove_stale(path)?;
    let socket = new_socket(AddressFamily::UNIX)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Nobody can connect before it listens, so that nobody has more rights for a moment.
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Removes a socket that an agent has left which did not end cleanly.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests;
