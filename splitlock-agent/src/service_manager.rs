//! What a service manager is told, by sd_notify(3): that the agent counts and serves, that it still
//! does, and that it ends.
//!
//! The socket is opened while the process still may, and written to later.

use std::{
    convert::Infallible,
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram as StdDatagram},
        },
    },
    process,
    time::Duration,
};

use tokio::{
    net::UnixDatagram,
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::warn;

use crate::agent::Request;

/// The path of the manager's socket; an abstract one's begins with `@`.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Microseconds in which the manager wants to hear that all is well.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// The process that it wants to hear it from, if one alone.
const WATCHDOG_PROCESS: &str = "WATCHDOG_PID";

/// The way to the service manager, opened outside a runtime.
#[derive(Debug, Default)]
pub struct Line {
    socket: Option<StdDatagram>,
    /// Between two signs of life.
    period: Option<Duration>,
}

impl Line {
    /// Opens what the environment names. Without a service manager there is nothing to open, and one
    /// that cannot be reached is only warned of: the variable may be another service's.
    pub fn open() -> Self {
        let Some(name) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        match connect(&name) {
            Ok(socket) => Self {
                socket: Some(socket),
                period: period(
                    env::var(WATCHDOG).ok().as_deref(),
                    env::var(WATCHDOG_PROCESS).ok().as_deref(),
                    process::id(),
                ),
            },
            Err(error) => {
                warn!(
                    socket = %name.display(), %error,
                    "{SOCKET}: the service manager cannot be told how the agent is"
                );
                Self::default()
            }
        }
    }

    /// Takes it into a runtime.
    ///
    /// # Errors
    /// The runtime cannot wait for the socket.
    pub fn enter(self) -> io::Result<ServiceManager> {
        let Self { socket, period } = self;
        Ok(ServiceManager {
            socket: socket.map(UnixDatagram::from_std).transpose()?,
            period,
        })
    }
}

/// Who started this process, if it wants to be told.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    period: Option<Duration>,
}

impl ServiceManager {
    /// Tells that the agent is ready once it answers, and then, if the manager keeps a watchdog, that it
    /// still does, at half of the watchdog's time. It is the agent's own task that is asked: were it
    /// enough that a timer runs, one that hangs would be kept.
    ///
    /// Without a watchdog nothing wakes up here any more.
    pub async fn attend(&self, agent: &mpsc::Sender<Request>, status: &str) -> Infallible {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        answers(agent).await;
        self.tell(&format!("READY=1\nSTATUS={status}")).await;
        let Some(period) = self.period else {
            return std::future::pending().await;
        };
        loop {
            sleep(period).await;
            answers(agent).await;
            self.tell("WATCHDOG=1").await;
        }
    }

    /// Tells that the agent ends, and why.
    pub async fn part(&self, why: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={why}")).await;
    }

    async fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(state.as_bytes()).await {
            warn!(state, %error, "the service manager was not told");
        }
    }
}

/// Waits until the agent's task has answered; for ever, if it never does.
async fn answers(agent: &mpsc::Sender<Request>) {
    let (sender, answer) = oneshot::channel();
    if agent.send(Request::Pulse(sender)).await.is_err() || answer.await.is_err() {
        // The agent is gone, and so will be this process.
        std::future::pending().await
    }
}

fn connect(name: &OsStr) -> io::Result<StdDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let error = "neither a path nor an abstract name";
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        }
    };
    let socket = StdDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Half of the watchdog's time, as sd_watchdog_enabled(3) advises; `None` where there is none, or it is
/// for another process.
fn period(microseconds: Option<&str>, watched: Option<&str>, own: u32) -> Option<Duration> {
    if let Some(watched) = watched
        && watched.parse() != Ok(own)
    {
        return None;
    }
    let microseconds: u64 = microseconds?.parse().ok()?;
    (microseconds > 1).then(|| Duration::from_micros(microseconds / 2))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixDatagram, time::Instant};

    use tokio::{runtime, time::timeout};

    use super::*;

    #[test]
    fn the_watchdog_is_fed_at_half_its_time_by_whom_it_names() {
        let half = Some(Duration::from_secs(15));
        assert_eq!(period(Some("30000000"), None, 7), half);
        assert_eq!(period(Some("30000000"), Some("7"), 7), half);
        assert_eq!(period(Some("30000000"), Some("8"), 7), None);
        for none in [None, Some("0"), Some("1"), Some(""), Some("-4"), Some("x")] {
            assert_eq!(period(none, None, 7), None, "{none:?}");
        }
    }

    #[test]
    fn only_unix_sockets_are_connected() {
        for name in ["relative", "vsock:2:1234", "@", "/no/such/socket"] {
            assert!(connect(OsStr::new(name)).is_err(), "{name}");
        }
    }

    /// A manager with an abstract socket of this name.
    fn manager(name: &str) -> (UnixDatagram, Line) {
        let name = format!("splitlock-test-{name}-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let line = Line {
            socket: Some(connect(OsStr::new(&format!("@{name}"))).unwrap()),
            period: Some(Duration::from_millis(20)),
        };
        (socket, line)
    }

    fn next(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn an_agent_that_hangs_is_not_said_to_be_well() {
        let (socket, line) = manager("hangs");
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let manager = line.enter().unwrap();
            let (requests, mut questions) = mpsc::channel(1);
            let agent = async {
                // It answers four times, and then hangs with the question in its hand.
                for _ in 0..4 {
                    let Some(Request::Pulse(answer)) = questions.recv().await else {
                        panic!("another question");
                    };
                    answer.send(()).unwrap();
                }
                std::future::pending::<()>().await;
            };
            let attending = manager.attend(&requests, "counting");
            let both = async { tokio::join!(agent, attending) };
            assert!(timeout(Duration::from_millis(500), both).await.is_err());
            manager.part("done").await;
        });
        assert_eq!(next(&socket), "READY=1\nSTATUS=counting");
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(next(&socket), "WATCHDOG=1");
        }
        assert_eq!(next(&socket), "STOPPING=1\nSTATUS=done");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
