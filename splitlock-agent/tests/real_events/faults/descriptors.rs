//! An agent that may open no more files.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::super::{
    Test,
    agent::Agent,
    events::{Child, Event},
    processes::checks,
    requirements::{
        Requirement::{AlignmentChecks, Root},
        missed,
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults::without_a_free_descriptor_it_counts_and_recovers",
        needs: &[Root, AlignmentChecks],
        run: without_a_free_descriptor_it_counts_and_recovers,
    },
    Test {
        name: "faults::subjects_past_the_descriptors_are_counted_and_forgotten",
        needs: &[Root, AlignmentChecks],
        run: subjects_past_the_descriptors_are_counted_and_forgotten,
    },
];

const TRAPS: u64 = 20;
/// Another user's process can be limited only with CAP_SYS_RESOURCE, which not every machine has.
const KEEP: &[&str] = &["--privileges", "keep"];

fn open_descriptors(agent: &Agent) -> u64 {
    let folder = fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("the agent runs");
    folder.count() as u64
}

#[track_caller]
fn limit_descriptors(agent: &Agent, current: u64) {
    let pid = Pid::from_raw(agent.pid().cast_signed());
    let now = prlimit(pid, Resource::Nofile, unlimited()).expect("root may");
    let limit = Rlimit {
        current: Some(current),
        maximum: now.maximum,
    };
    prlimit(pid, Resource::Nofile, limit).expect("root may");
}

/// What this process may have: the agent's was raised to it.
fn unlimited() -> Rlimit {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    Rlimit {
        current: maximum,
        maximum,
    }
}

fn traps(comm: &str) -> Child {
    let event = Event::AlignmentCheck {
        count: TRAPS,
        threads: 1,
    };
    Child::spawn(&event, comm)
}

fn without_a_free_descriptor_it_counts_and_recovers() {
    let agent = Agent::start(KEEP);
    // With the numbers that it has in use it can open nothing.
    limit_descriptors(&agent, 3);
    let mut children: Vec<Child> = (0..20).map(|index| traps(&format!("fd-{index}"))).collect();
    for child in &mut children {
        child.run();
    }
    // The kernel takes the connection; the agent cannot.
    let mut client = TcpStream::connect(agent.address()).expect("the kernel accepts");
    client
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .expect("the kernel takes it");
    client
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a socket");
    let refused = client.read(&mut [0; 1]);
    assert!(refused.is_err(), "it has answered: {refused:?}");
    let log = agent.log();
    assert!(
        log.iter()
            .any(|line| line["message"] == "accepting a connection"),
        "{log:#?}"
    );
    limit_descriptors(&agent, 4096);
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    let mut answer = vec![];
    client.read_to_end(&mut answer).expect("it is answered now");
    assert!(answer.starts_with(b"HTTP/1.0 200 OK"));
    let metrics = agent.metrics();
    let mut skipped = missed(&metrics, "signal_generate");
    for (index, child) in children.iter().enumerate() {
        let counted = metrics.count(&checks(&format!("fd-{index}"), child.pid()));
        assert!(counted <= TRAPS && TRAPS - counted <= skipped, "{counted}");
        skipped -= TRAPS - counted;
    }
}

/// Each subject that lives takes a descriptor, as it is watched; those that find none are looked at
/// when somebody asks.
fn subjects_past_the_descriptors_are_counted_and_forgotten() {
    const SUBJECTS: usize = 100;
    let agent = Agent::start(&[KEEP, &["--retention", "1s"]].concat());
    limit_descriptors(&agent, open_descriptors(&agent) + 30);
    let mut children: Vec<Child> = (0..SUBJECTS)
        .map(|index| traps(&format!("watch-{index}")))
        .collect();
    for child in &mut children {
        child.run();
    }
    let pids: Vec<u32> = children.iter().map(Child::pid).collect();
    let series: Vec<String> = pids
        .iter()
        .enumerate()
        .map(|(index, pid)| checks(&format!("watch-{index}"), *pid))
        .collect();
    let metrics = agent.wait_for("all of them", |metrics| {
        series.iter().all(|series| metrics.get(series).is_some())
    });
    let counted: u64 = series.iter().map(|series| metrics.count(series)).sum();
    let made = SUBJECTS as u64 * TRAPS;
    let skipped = missed(&metrics, "signal_generate");
    assert!(counted <= made && counted + skipped >= made, "{counted}");
    for child in children {
        child.end();
    }
    // Also of those whose ends nobody has told it.
    let start = Instant::now();
    while series
        .iter()
        .any(|series| agent.metrics().get(series).is_some())
    {
        assert!(start.elapsed() < Duration::from_secs(20), "they stay");
        thread::sleep(Duration::from_millis(100));
    }
}
