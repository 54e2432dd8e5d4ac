//! The event log: a line for each event, in whatever state its reader is.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixDatagram, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{self, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::CWD,
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};
use serde_json::Value;

use super::{
    Test,
    agent::Agent,
    events::{Child, Event},
    requirements::Requirement::{AlignmentChecks, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "event_log::each_event_has_a_line_with_its_culprit",
        needs: &[Root, AlignmentChecks],
        run: each_event_has_a_line_with_its_culprit,
    },
    Test {
        name: "event_log::lines_past_the_limit_are_counted",
        needs: &[Root, AlignmentChecks],
        run: lines_past_the_limit_are_counted,
    },
    Test {
        name: "event_log::a_reader_that_does_not_read_holds_nobody_up",
        needs: &[Root, AlignmentChecks],
        run: a_reader_that_does_not_read_holds_nobody_up,
    },
    Test {
        name: "event_log::a_reader_that_goes_away_is_no_end",
        needs: &[Root, AlignmentChecks],
        run: a_reader_that_goes_away_is_no_end,
    },
    Test {
        name: "event_log::the_journal_gets_fields",
        needs: &[Root, AlignmentChecks],
        run: the_journal_gets_fields,
    },
    Test {
        name: "event_log::without_a_journal_it_says_so",
        needs: &[Root],
        run: without_a_journal_it_says_so,
    },
];

fn checks(count: u64) -> Event {
    Event::AlignmentCheck { count, threads: 1 }
}

/// A file of this test alone, and of a line each in it what belongs to a process.
struct Lines(PathBuf);

impl Lines {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("splitlock-{name}-{}", process::id())))
    }

    fn of(&self, pid: u32) -> Vec<Value> {
        let mut lines = self.all();
        lines.retain(|line| line["pid"] == pid);
        lines
    }

    fn all(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.0).expect("the agent's standard output");
        text.lines()
            // The last may be half written.
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .collect()
    }

    #[track_caller]
    fn wait_for(&self, pid: u32, count: usize) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let lines = self.of(pid);
            if lines.len() >= count {
                return lines;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{} of {count} lines",
                lines.len()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn start(args: &[&str], stdout: impl Into<Stdio>) -> Agent {
    let args: Vec<&str> = ["--events", "json"].iter().chain(args).copied().collect();
    let stdout = stdout.into();
    Agent::start_prepared(&args, |command| {
        command.stdout(stdout);
    })
}

fn lost(agent: &Agent, cause: &str) -> u64 {
    agent
        .metrics()
        .count(&format!(r#"splitlock_lost_total{{cause="{cause}"}}"#))
}

fn each_event_has_a_line_with_its_culprit() {
    let lines = Lines::new("lines");
    let agent = start(&[], File::create(&lines.0).expect("a file"));
    // A line waits 2 s for the function; the first look at a large program can take longer.
    let mut first = Child::spawn(&checks(1), "ev-first");
    first.run();
    super::sites::resolved(&agent, first.pid());
    let mut child = Child::spawn(&checks(5), "ev-lines");
    let pid = child.pid();
    child.run();
    let found = lines.wait_for(pid, 5);
    assert_eq!(found.len(), 5);
    for line in &found {
        for (key, value) in [
            ("event", "alignment_check"),
            ("comm", "ev-lines"),
            ("thread", "ev-lines"),
            ("probe", "signal_generate"),
        ] {
            assert_eq!(line[key], value, "{line}");
        }
        assert!(line.get("trap").is_none(), "no lock: {line}");
        let exe = line["exe"].as_str().expect("its file");
        assert!(Path::new(exe).is_absolute(), "{line}");
        assert!(line["ip"].as_str().is_some_and(|ip| ip.starts_with("0x")));
        let function = line["function"].as_str().expect("its function");
        assert!(function.contains("misaligned_load"), "{line}");
        assert!(
            line["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
    }
    assert_eq!(lost(&agent, "event_log_behind"), 0);
    child.end();
}

fn lines_past_the_limit_are_counted() {
    let lines = Lines::new("limit");
    let args = [
        "--limit.events-per-second",
        "3",
        "--limit.records-per-second",
        "1000",
    ];
    let begin = Instant::now();
    let agent = start(&args, File::create(&lines.0).expect("a file"));
    let mut child = Child::spawn(&checks(50), "ev-limit");
    child.run();
    // The limit is the host's: other tests' events may have taken all lines of a second.
    let metrics = agent.wait_for("a loss", |metrics| {
        metrics.count(r#"splitlock_lost_total{cause="event_log_rate_limit"}"#) >= 40
    });
    let series = super::processes::checks("ev-limit", child.pid());
    assert_eq!(metrics.count(&series), 50);
    // The next line says how many there were.
    thread::sleep(Duration::from_secs(1));
    let mut next = Child::spawn(&checks(1), "ev-next");
    next.run();
    let told = |all: &[Value]| -> u64 {
        all.iter()
            .filter_map(|line| line["suppressed"].as_u64())
            .sum()
    };
    let start = Instant::now();
    let all = loop {
        let all = lines.all();
        if told(&all) >= 40 || start.elapsed() > Duration::from_secs(10) {
            break all;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let told = told(&all);
    let suppressed = lost(&agent, "event_log_rate_limit");
    assert!(told >= 40 && told <= suppressed, "{told} of {suppressed}");
    let seconds = begin.elapsed().as_secs() as usize + 2;
    assert!(all.len() <= 3 * seconds, "{} in {seconds} s", all.len());
}

fn a_reader_that_does_not_read_holds_nobody_up() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let args = [
        "--limit.events-per-second",
        "100000",
        "--limit.records-per-second",
        "100000",
    ];
    let agent = start(&args, OwnedFd::from(writer));
    let mut child = Child::spawn(&checks(6000), "ev-slow");
    let pid = child.pid();
    child.run();
    let begin = Instant::now();
    let behind = agent
        .wait_for("a loss", |metrics| {
            metrics.count(r#"splitlock_lost_total{cause="event_log_behind"}"#) > 0
        })
        .count(r#"splitlock_lost_total{cause="event_log_behind"}"#);
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert!(behind < 6000, "{behind}");
    let series = super::processes::checks("ev-slow", pid);
    assert_eq!(agent.metrics().count(&series), 6000);
    // What was not lost is there for who reads at last.
    let reading = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    // As long as an event may wait for what is not known yet.
    thread::sleep(Duration::from_secs(3));
    let behind = lost(&agent, "event_log_behind") + lost(&agent, "record_ring_full");
    let (status, _) = agent.end(libc::SIGTERM);
    assert!(status.success());
    let text = reading.join().expect("no panic").expect("the pipe is read");
    let read = text
        .lines()
        .filter(|line| {
            serde_json::from_str::<Value>(line).is_ok_and(|line| line["comm"] == "ev-slow")
        })
        .count() as u64;
    // Of other tests' events some may be among the lost.
    assert!(
        read > 0 && read < 6000 && read + behind >= 6000,
        "{read} and {behind}"
    );
}

fn a_reader_that_goes_away_is_no_end() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let agent = start(&[], OwnedFd::from(writer));
    drop(reader);
    let mut child = Child::spawn(&checks(3), "ev-gone");
    let series = super::processes::checks("ev-gone", child.pid());
    child.run();
    agent.wait_for("the loss", |metrics| {
        metrics.count(r#"splitlock_lost_total{cause="event_log_behind"}"#) >= 3
    });
    assert_eq!(agent.metrics().count(&series), 3);
    assert!(agent.log().iter().any(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("event log"))
    }),);
}

/// A folder with a socket, which is the agent's `/run/systemd/journal`.
fn the_journal_gets_fields() {
    let folder = std::env::temp_dir().join(format!("splitlock-journal-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let journal = UnixDatagram::bind(folder.join("socket")).expect("a socket");
    // As the journal's is: for every user.
    let all = fs::Permissions::from_mode(0o666);
    fs::set_permissions(folder.join("socket"), all).expect("permissions");
    journal
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let inside = folder.clone();
    let agent = Agent::start_prepared(&["--events", "journald"], |command| {
        // SAFETY: only system calls are made between fork and exec; the paths were made before.
        unsafe { command.pre_exec(move || have_journal(&inside)) };
    });
    let mut child = Child::spawn(&checks(1), "ev-journal");
    let pid = format!("SPLITLOCK_PID={}", child.pid());
    child.run();
    let fields = loop {
        let mut datagram = [0; 65536];
        let length = journal.recv(&mut datagram).expect("a datagram");
        let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
        let fields: Vec<String> = text.lines().map(str::to_owned).collect();
        if fields.contains(&pid) {
            break fields;
        }
    };
    for field in [
        "PRIORITY=6",
        "SYSLOG_IDENTIFIER=splitlock-agent",
        "SPLITLOCK_EVENT=alignment_check",
        "SPLITLOCK_COMM=ev-journal",
    ] {
        assert!(
            fields.iter().any(|found| found == field),
            "{field}: {fields:?}"
        );
    }
    let message = format!("MESSAGE=ev-journal ({}): alignment check", child.pid());
    assert!(
        fields.iter().any(|field| field.starts_with(&message)),
        "{message}: {fields:?}"
    );
    drop(agent);
    let _ = fs::remove_dir_all(&folder);
}

/// Gives the calling process a `/run` of its own with that journal.
fn have_journal(folder: &Path) -> io::Result<()> {
    have_own_run()?;
    for path in ["/run/systemd", "/run/systemd/journal"] {
        // As systemd makes them: for every user to pass.
        rustix::fs::mkdirat(CWD, path, rustix::fs::Mode::from_raw_mode(0o755))?;
    }
    mount_bind(folder, "/run/systemd/journal")?;
    Ok(())
}

/// Gives the calling process an empty `/run` of its own.
fn have_own_run() -> io::Result<()> {
    // SAFETY: the process is the child of a fork and has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount("run", "/run", "tmpfs", MountFlags::empty(), None)?;
    Ok(())
}

fn without_a_journal_it_says_so() {
    let mut command = process::Command::new(super::agent::binary());
    command
        .args(["run", "--web.listen-address", "127.0.0.1:0"])
        .args(["--events", "journald"]);
    // SAFETY: only system calls are made between fork and exec.
    unsafe { command.pre_exec(have_own_run) };
    let output = command.output().expect("the agent's binary starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("--events") && text.contains("journal"),
        "{text}"
    );
}
