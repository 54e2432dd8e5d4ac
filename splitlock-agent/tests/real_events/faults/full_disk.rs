//! A disk without room for what the agent writes: its log, and the event log.

use std::{
    fs::OpenOptions,
    net::{SocketAddr, TcpListener},
    process::{Child as Process, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::super::{
    Test,
    agent::{Agent, binary},
    events::{Child, Event},
    processes::checks,
    requirements::{
        Requirement::{AlignmentChecks, Root},
        missed,
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults::lines_of_events_that_find_the_disk_full_are_counted",
        needs: &[Root, AlignmentChecks],
        run: lines_of_events_that_find_the_disk_full_are_counted,
    },
    Test {
        name: "faults::a_log_that_finds_the_disk_full_stops_nothing",
        needs: &[Root],
        run: a_log_that_finds_the_disk_full_stops_nothing,
    },
];

/// A file that takes nothing: every write is ENOSPC (full(4)).
fn full() -> Stdio {
    let file = OpenOptions::new().write(true).open("/dev/full");
    file.expect("/dev/full").into()
}

fn lines_of_events_that_find_the_disk_full_are_counted() {
    const TRAPS: u64 = 5;
    let agent = Agent::start_prepared(&["--events", "json"], |command| {
        command.stdout(full());
    });
    let event = Event::AlignmentCheck {
        count: TRAPS,
        threads: 1,
    };
    let mut child = Child::spawn(&event, "disk-full");
    child.run();
    let lost = r#"splitlock_lost_total{cause="event_log_behind"}"#;
    let metrics = agent.wait_for("the lines that are lost", |metrics| {
        metrics.count(lost) >= TRAPS
    });
    let counted = metrics.count(&checks("disk-full", child.pid()));
    let skipped = missed(&metrics, "signal_generate");
    assert!(counted <= TRAPS && counted + skipped >= TRAPS, "{counted}");
    let said = |line: &serde_json::Value| {
        line["message"]
            .as_str()
            .is_some_and(|message| message.contains("event log cannot be written"))
    };
    assert_eq!(agent.log().iter().filter(|line| said(line)).count(), 1);
}

/// One that tells nobody where it serves.
struct Silent(Process);

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_log_that_finds_the_disk_full_stops_nothing() {
    let address = free_address();
    let process = Command::new(binary())
        .args(["run", "--web.listen-address", &address.to_string()])
        .args(["--log.level", "debug"])
        .stdin(Stdio::null())
        .stdout(full())
        .stderr(full())
        .spawn()
        .expect("the agent's binary starts");
    let mut agent = Silent(process);
    let start = Instant::now();
    loop {
        let answer = ureq::get(format!("http://{address}/healthz")).call();
        if answer.is_ok() {
            break;
        }
        let ended = agent.0.try_wait().expect("our child");
        assert_eq!(ended, None, "it ended");
        assert!(start.elapsed() < Duration::from_secs(30), "{answer:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A port that is free until somebody else takes it.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}
