//! What the agent tells a service manager: here the test is one, with a socket of its own.

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process,
    time::{Duration, Instant},
};

use super::{Test, agent::Agent, requirements::Requirement::Root};

pub const TESTS: &[Test] = &[
    Test {
        name: "service_manager::is_told_of_the_start_and_the_end",
        needs: &[Root],
        run: is_told_of_the_start_and_the_end,
    },
    Test {
        name: "service_manager::hears_no_more_of_an_agent_that_stands_still",
        needs: &[Root],
        run: hears_no_more_of_an_agent_that_stands_still,
    },
];

/// What it wants to hear from an agent is that it lives, twice in this time.
const WATCHDOG: Duration = Duration::from_millis(400);

struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Self {
        let name = format!("splitlock-notify-{name}-{}", process::id());
        let path = std::env::temp_dir().join(name);
        let socket = UnixDatagram::bind(&path).expect("a socket in the temporary folder");
        // The agent writes as whoever it has become.
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&path, everyone).expect("our socket");
        Self { socket, path }
    }

    fn start(&self, watchdog: Option<Duration>) -> Agent {
        Agent::start_prepared(&[], |command| {
            command.env("NOTIFY_SOCKET", &self.path);
            command.env_remove("WATCHDOG_PID");
            match watchdog {
                Some(time) => command.env("WATCHDOG_USEC", time.as_micros().to_string()),
                None => command.env_remove("WATCHDOG_USEC"),
            };
        })
    }

    /// The next message, if one comes in time.
    fn hear(&self, patience: Duration) -> Option<String> {
        let mut buffer = [0; 1024];
        self.socket
            .set_read_timeout(Some(patience))
            .expect("a time that is not zero");
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn hear_ready(&self, agent: &Agent) {
        let ready = self.hear(Duration::from_secs(30)).expect("it gets ready");
        let state = format!("READY=1\nSTATUS=serving on http://{}", agent.address());
        assert!(ready.starts_with(&state), "{ready:?}");
        // Whoever waited for this may ask.
        assert_eq!(agent.get("/readyz"), "ok\n");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_told_of_the_start_and_the_end() {
    let manager = Manager::new("start");
    let agent = manager.start(None);
    manager.hear_ready(&agent);
    // Nobody asked for signs of life.
    assert_eq!(manager.hear(2 * WATCHDOG), None);
    let (status, _) = agent.end(libc::SIGTERM);
    assert!(status.success(), "{status:?}");
    let stopping = manager.hear(Duration::from_secs(1)).expect("it said so");
    assert_eq!(stopping, "STOPPING=1\nSTATUS=SIGTERM: ending");
}

fn hears_no_more_of_an_agent_that_stands_still() {
    let manager = Manager::new("watchdog");
    let agent = manager.start(Some(WATCHDOG));
    manager.hear_ready(&agent);
    let start = Instant::now();
    for _ in 0..5 {
        let sign = manager.hear(Duration::from_secs(30));
        assert_eq!(sign.as_deref(), Some("WATCHDOG=1"));
    }
    // At half of the time, but for what this machine takes.
    assert!(start.elapsed() >= 4 * WATCHDOG / 2, "{:?}", start.elapsed());

    signal(&agent, libc::SIGSTOP);
    // One may have been under way.
    let _ = manager.hear(WATCHDOG / 2);
    assert_eq!(manager.hear(4 * WATCHDOG), None, "it stands still");
    signal(&agent, libc::SIGCONT);
    let sign = manager.hear(Duration::from_secs(30));
    assert_eq!(sign.as_deref(), Some("WATCHDOG=1"));
}

fn signal(agent: &Agent, signal: i32) {
    // SAFETY: the agent is this process's child and was not waited for, so its pid is its own.
    let status = unsafe { libc::kill(agent.pid().cast_signed(), signal) };
    assert_eq!(status, 0, "kill");
}
