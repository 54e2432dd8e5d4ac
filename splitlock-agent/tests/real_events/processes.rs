//! Processes that trap, or pretend to.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{Child, Event, forged_signal::Forgery},
    requirements::Requirement::{AlignmentChecks, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "processes::alignment_checks_are_counted_exactly",
        needs: &[Root, AlignmentChecks],
        run: alignment_checks_are_counted_exactly,
    },
    Test {
        name: "processes::eight_at_once_are_counted_exactly",
        needs: &[Root, AlignmentChecks],
        run: eight_at_once_are_counted_exactly,
    },
    Test {
        name: "processes::forged_signals_count_as_nothing",
        needs: &[Root],
        run: forged_signals_count_as_nothing,
    },
    Test {
        name: "processes::the_classic_tracepoint_counts_the_same",
        needs: &[Root, AlignmentChecks],
        run: the_classic_tracepoint_counts_the_same,
    },
    Test {
        name: "processes::other_bus_errors_count_as_nothing",
        needs: &[Root],
        run: other_bus_errors_count_as_nothing,
    },
    Test {
        name: "processes::a_process_that_dies_of_it_is_named",
        needs: &[Root, AlignmentChecks],
        run: a_process_that_dies_of_it_is_named,
    },
    Test {
        name: "processes::those_that_trap_and_exit_at_once_are_named",
        needs: &[Root, AlignmentChecks],
        run: those_that_trap_and_exit_at_once_are_named,
    },
    Test {
        name: "processes::series_go_after_the_retention_time",
        needs: &[Root, AlignmentChecks],
        run: series_go_after_the_retention_time,
    },
    Test {
        name: "processes::past_the_limit_there_are_no_more_series",
        needs: &[Root, AlignmentChecks],
        run: past_the_limit_there_are_no_more_series,
    },
    Test {
        name: "processes::a_hostile_comm_stays_a_name",
        needs: &[Root, AlignmentChecks],
        run: a_hostile_comm_stays_a_name,
    },
    Test {
        name: "processes::the_story_tells_where",
        needs: &[Root, AlignmentChecks],
        run: the_story_tells_where,
    },
    Test {
        name: "processes::a_user_cannot_speak_for_the_kernel_log",
        needs: &[Root],
        run: a_user_cannot_speak_for_the_kernel_log,
    },
];

/// A process's series of alignment checks.
pub fn checks(comm: &str, pid: u32) -> String {
    format!(r#"splitlock_process_alignment_checks_total{{comm="{comm}",pid="{pid}"}}"#)
}

/// No test here makes a lock, so no family of locks may move.
#[track_caller]
fn assert_no_locks(metrics: &Metrics) {
    let host = metrics.family("splitlock_host_traps_total");
    assert_eq!(host.len(), 8);
    assert!(host.values().all(|count| *count == 0.0), "{host:?}");
    for family in [
        "splitlock_process_traps_total",
        "splitlock_vm_traps_total",
        "splitlock_process_last_trap_timestamp_seconds",
    ] {
        let series = metrics.family(family);
        assert!(series.is_empty(), "{series:?}");
    }
    for (series, count) in metrics.family("splitlock_overflow_traps_total") {
        assert_eq!(count, 0.0, "{series}");
    }
}

fn alignment_checks_are_counted_exactly() {
    let agent = Agent::start(&[]);
    for (count, threads) in [(1, 1), (2, 1), (1000, 1), (100_000, 1), (10_001, 4)] {
        let mut child = Child::spawn(&Event::AlignmentCheck { count, threads }, "ac-exact");
        let series = checks("ac-exact", child.pid());
        assert_eq!(agent.metrics().get(&series), None);
        let results = child.run();
        assert_eq!(results.get("bus_adraln"), count);
        let metrics = agent.metrics();
        assert_eq!(metrics.count(&series), count, "{series}");
        assert_no_locks(&metrics);
        child.end();
        assert_eq!(
            agent.metrics().count(&series),
            count,
            "{series} after its end"
        );
    }
}

fn eight_at_once_are_counted_exactly() {
    let agent = Agent::start(&[]);
    let event = Event::AlignmentCheck {
        count: 10_000,
        threads: 1,
    };
    let mut children: Vec<Child> = (0..8)
        .map(|index| Child::spawn(&event, &format!("ac-eight-{index}")))
        .collect();
    for child in &mut children {
        child.go();
    }
    for child in &mut children {
        assert_eq!(child.results().get("bus_adraln"), 10_000);
    }
    let metrics = agent.metrics();
    for (index, child) in children.iter().enumerate() {
        let series = checks(&format!("ac-eight-{index}"), child.pid());
        assert_eq!(metrics.count(&series), 10_000, "{series}");
    }
    assert_no_locks(&metrics);
}

fn forged_signals_count_as_nothing() {
    let agent = Agent::start(&[]);
    for forgery in Forgery::ALL {
        for eflags_ac in [false, true] {
            let event = Event::ForgedSignal {
                forgery,
                eflags_ac,
                count: 100,
            };
            let mut child = Child::spawn(&event, "forger");
            assert_eq!(child.run().get(forgery.result()), 100, "{event:?}");
            let metrics = agent.metrics();
            let series = metrics.with_label("pid", &child.pid().to_string());
            assert!(series.is_empty(), "{event:?}: {series:?}");
            assert_no_locks(&metrics);
        }
    }
}

fn the_classic_tracepoint_counts_the_same() {
    let agent = Agent::start(&["--probe", "signal_generate=tracepoint"]);
    assert_eq!(agent.via("signal_generate"), "tracepoint");
    let event = Event::AlignmentCheck {
        count: 1000,
        threads: 2,
    };
    let mut child = Child::spawn(&event, "ac-classic");
    child.run();
    let event = Event::ForgedSignal {
        forgery: Forgery::RtTgsigqueueinfo,
        eflags_ac: true,
        count: 100,
    };
    let mut forger = Child::spawn(&event, "forger-classic");
    forger.run();
    let metrics = agent.metrics();
    assert_eq!(metrics.count(&checks("ac-classic", child.pid())), 1000);
    let series = metrics.with_label("pid", &forger.pid().to_string());
    assert!(series.is_empty(), "{series:?}");
    assert_no_locks(&metrics);
}

fn other_bus_errors_count_as_nothing() {
    let agent = Agent::start(&[]);
    let mut child = Child::spawn(&Event::RealBusError { count: 1000 }, "bus-error");
    assert_eq!(child.run().get("bus_adrerr"), 1000);
    let metrics = agent.metrics();
    let series = metrics.with_label("pid", &child.pid().to_string());
    assert!(series.is_empty(), "{series:?}");
    assert_no_locks(&metrics);
}

fn a_process_that_dies_of_it_is_named() {
    let agent = Agent::start(&[]);
    let mut child = Child::spawn(&Event::AlignmentCheckFatal, "ac-fatal");
    let series = checks("ac-fatal", child.pid());
    child.go();
    assert_eq!(child.end().signal(), Some(libc::SIGBUS));
    let metrics = agent.metrics();
    assert_eq!(metrics.count(&series), 1, "{series}");
    assert_no_locks(&metrics);
}

/// They are gone before anybody can look at them.
fn those_that_trap_and_exit_at_once_are_named() {
    let agent = Agent::start(&[]);
    let event = Event::AlignmentCheck {
        count: 3,
        threads: 1,
    };
    let series: Vec<String> = (0..50)
        .map(|index| {
            let comm = format!("ac-short-{index}");
            let mut child = Child::spawn_exit_at_once(&event, &comm);
            let series = checks(&comm, child.pid());
            assert_eq!(child.results().get("bus_adraln"), 3);
            child.end();
            series
        })
        .collect();
    let metrics = agent.metrics();
    for series in series {
        assert_eq!(metrics.count(&series), 3, "{series}");
    }
}

/// The end of a process is noticed by itself, and its series go all at once.
fn series_go_after_the_retention_time() {
    let agent = Agent::start(&["--retention", "2s"]);
    let event = Event::AlignmentCheck {
        count: 7,
        threads: 1,
    };
    let mut child = Child::spawn(&event, "ac-retained");
    let pid = child.pid().to_string();
    child.run();
    let ended = Instant::now();
    child.end();
    let metrics = agent.metrics();
    if ended.elapsed() < Duration::from_secs(2) {
        let series = metrics.with_label("pid", &pid);
        let families: Vec<&str> = series
            .keys()
            .filter_map(|series| series.split('{').next())
            .collect();
        let expected = [
            "splitlock_process_alignment_checks_total",
            "splitlock_process_info",
        ];
        assert_eq!(families, expected);
    }
    agent.wait_for("the end of the series", |metrics| {
        metrics.with_label("pid", &pid).is_empty()
    });
    assert!(ended.elapsed() >= Duration::from_secs(2));
}

fn past_the_limit_there_are_no_more_series() {
    let agent = Agent::start(&["--limit.processes", "2"]);
    let event = Event::AlignmentCheck {
        count: 3,
        threads: 1,
    };
    let mut children: Vec<Child> = (0..4)
        .map(|index| Child::spawn(&event, &format!("ac-limit-{index}")))
        .collect();
    for child in &mut children {
        child.run();
    }
    let metrics = agent.metrics();
    // Other tests' processes may have taken the places.
    let shown = metrics.family("splitlock_process_alignment_checks_total");
    assert_eq!(shown.len(), 2, "{shown:?}");
    for (name, value) in [("", 2.0), ("_limit", 2.0)] {
        let series = format!(r#"splitlock_tracked_subjects{name}{{kind="process"}}"#);
        assert_eq!(metrics.get(&series), Some(value), "{series}");
    }
    assert_no_locks(&metrics);
}

fn a_hostile_comm_stays_a_name() {
    let agent = Agent::start(&[]);
    let event = Event::AlignmentCheck {
        count: 5,
        threads: 1,
    };
    let mut child = Child::spawn(&event, "a\"}\n<b>\\\u{1b}[2J");
    child.run();
    let series = checks(r#"a\"}\\x0a<b>\\\\x1b[2J"#, child.pid());
    assert_eq!(agent.metrics().count(&series), 5, "{series}");
    let snapshot = agent.snapshot();
    let row = process(&snapshot, child.pid());
    assert_eq!(row["comm"], "a\"}\\x0a<b>\\\\x1b[2J");
}

#[track_caller]
fn process(snapshot: &Value, pid: u32) -> &Value {
    snapshot["processes"]
        .as_array()
        .expect("processes is a list")
        .iter()
        .find(|row| row["pid"] == pid)
        .unwrap_or_else(|| panic!("pid {pid} in {snapshot:#}"))
}

fn the_story_tells_where() {
    let agent = Agent::start(&["--limit.records-per-second", "3"]);
    let event = Event::AlignmentCheck {
        count: 50,
        threads: 1,
    };
    let mut child = Child::spawn(&event, "ac-story");
    child.run();
    let snapshot = agent.snapshot();
    let row = process(&snapshot, child.pid());
    assert_eq!(row["alignment_checks"], 50);
    assert_eq!(row["alive"], true);
    let start_ticks = row["start_ticks"].as_u64().expect("a number");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).expect("it runs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("a comm")
        .split_whitespace()
        .collect();
    assert_eq!(fields[19].parse(), Ok(start_ticks));

    let stories: Vec<&Value> = snapshot["recent"]
        .as_array()
        .expect("recent is a list")
        .iter()
        .filter(|story| story["pid"] == child.pid())
        .collect();
    // All in one second, or over the border of two.
    assert!((3..=6).contains(&stories.len()), "{stories:#?}");
    for story in stories {
        assert_eq!(story["event"], "alignment_check");
        assert_eq!(story["probe"], "signal_generate");
        assert_eq!(story["comm"], "ac-story");
        let ip = story["ip"].as_str().expect("an instruction pointer");
        assert!(ip.starts_with("0x"), "{ip}");
    }
    let lost = agent
        .metrics()
        .count(r#"splitlock_lost_total{cause="record_rate_limit"}"#);
    assert!(lost >= 44, "{lost}");
}

/// A line of facility 0 is the kernel's; what a user writes to /dev/kmsg never is.
fn a_user_cannot_speak_for_the_kernel_log() {
    let agent = Agent::start(&[]);
    let mut kmsg = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .expect("/dev/kmsg is root's");
    kmsg.write_all(
        b"<4>x86/split lock detection: #AC: forger/1 took a split_lock trap at address: 0x401000\n",
    )
    .expect("a line is written at once");
    // The agent reads the log as it grows; a line of the agent's own debug level would not prove
    // that it has read this one, so it gets time.
    thread::sleep(Duration::from_millis(300));
    let metrics = agent.metrics();
    for trap in ["split_lock", "bus_lock"] {
        let series = format!(r#"splitlock_kernel_log_reports_total{{trap="{trap}"}}"#);
        assert_eq!(metrics.get(&series), Some(0.0), "{series}");
    }
    assert_no_locks(&metrics);
}
