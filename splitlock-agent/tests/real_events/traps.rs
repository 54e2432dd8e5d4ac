//! The kernel's own split-lock code at work, in the rig: what its functions did is what the agent
//! counted, by each rung of the ladders.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{
        Child, Event, Results,
        trap_module::{Mode, Trap, set_mode},
    },
    requirements::{
        self,
        Requirement::{BusLocks, ExactFentry, TrapModule},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "traps::fentry_counts_warnings",
        needs: &[TrapModule, ExactFentry],
        run: || warnings_are_counted("fentry"),
    },
    Test {
        name: "traps::kprobe_counts_warnings",
        needs: &[TrapModule],
        run: || warnings_are_counted("kprobe"),
    },
    Test {
        name: "traps::fentry_counts_signals",
        needs: &[TrapModule, ExactFentry],
        run: || signals_are_counted("fentry"),
    },
    Test {
        name: "traps::kprobe_counts_signals",
        needs: &[TrapModule],
        run: || signals_are_counted("kprobe"),
    },
    Test {
        name: "traps::fentry_counts_bus_locks",
        needs: &[TrapModule, BusLocks, ExactFentry],
        run: || bus_locks_are_counted("fentry"),
    },
    Test {
        name: "traps::kprobe_counts_bus_locks",
        needs: &[TrapModule, BusLocks],
        run: || bus_locks_are_counted("kprobe"),
    },
    Test {
        name: "traps::the_agents_own_choice_counts",
        needs: &[TrapModule],
        run: the_agents_own_choice_counts,
    },
    Test {
        name: "traps::signal_generate_counts_bus_locks_where_only_they_are_armed",
        needs: &[TrapModule, BusLocks],
        run: signal_generate_counts_bus_locks_where_only_they_are_armed,
    },
    Test {
        name: "traps::signal_generate_counts_where_the_functions_cannot",
        needs: &[TrapModule],
        run: signal_generate_counts_where_the_functions_cannot,
    },
    Test {
        name: "traps::the_kernel_log_counts_where_nothing_else_can",
        needs: &[TrapModule],
        run: the_kernel_log_counts_where_nothing_else_can,
    },
    Test {
        name: "traps::alignment_checks_are_no_locks_in_any_mode",
        needs: &[TrapModule],
        run: alignment_checks_are_no_locks_in_any_mode,
    },
    Test {
        name: "traps::many_processes_at_once_are_told_apart",
        needs: &[TrapModule],
        run: many_processes_at_once_are_told_apart,
    },
    Test {
        name: "traps::those_that_die_of_it_are_named",
        needs: &[TrapModule],
        run: those_that_die_of_it_are_named,
    },
    Test {
        name: "traps::past_the_limit_locks_are_in_the_overflow",
        needs: &[TrapModule],
        run: past_the_limit_locks_are_in_the_overflow,
    },
];

/// The instruction pointer that the kernel is told.
pub const IP: u64 = 0x40_1000;

const FUNCTIONS: [&str; 4] = [
    "handle_user_split_lock",
    "handle_guest_split_lock",
    "handle_bus_lock",
    "split_lock_warn",
];

pub fn agent(via: &str, more: &[&str]) -> Agent {
    let choices = FUNCTIONS.map(|function| format!("--probe={function}={via}"));
    let mut args: Vec<&str> = choices.iter().map(String::as_str).collect();
    args.extend(more);
    Agent::start(&args)
}

pub fn event(trap: Trap, count: u64, threads: u32) -> Event {
    Event::TrapModule {
        trap,
        ip: IP,
        count,
        threads,
        disturbed: false,
    }
}

/// The id of a VM without a UUID.
pub fn vm_id(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after_comm = stat.rsplit(')').next().expect("a comm");
    let start = after_comm.split_whitespace().nth(19).expect("a start time");
    format!("{pid}-{start}")
}

/// The labels of a trap by the trap's name: origin, trap.
pub fn labels(trap: Trap) -> (&'static str, &'static str) {
    match trap {
        Trap::UserSplitLock => ("user", "split_lock"),
        Trap::GuestSplitLock => ("guest", "split_lock"),
        Trap::BusLock => ("user", "bus_lock"),
        Trap::AlignmentCheck => panic!("an alignment check is no lock"),
    }
}

/// The series that a trap of `child` is counted in.
pub fn series(trap: Trap, child: &Child, comm: &str, outcome: &str) -> String {
    let (origin, kind) = labels(trap);
    if origin == "guest" {
        let id = vm_id(child.pid());
        format!(
            r#"splitlock_vm_traps_total{{vm="{comm}",id="{id}",trap="{kind}",outcome="{outcome}"}}"#
        )
    } else {
        let pid = child.pid();
        format!(
            r#"splitlock_process_traps_total{{comm="{comm}",pid="{pid}",trap="{kind}",outcome="{outcome}"}}"#
        )
    }
}

fn host_series(trap: Trap, outcome: &str) -> String {
    let (origin, kind) = labels(trap);
    format!(r#"splitlock_host_traps_total{{origin="{origin}",trap="{kind}",outcome="{outcome}"}}"#)
}

pub fn host_sum(metrics: &Metrics) -> u64 {
    metrics
        .family("splitlock_host_traps_total")
        .values()
        .map(|value| *value as u64)
        .sum()
}

/// Makes traps, and checks that they are counted once, in their series and in the host's.
#[track_caller]
fn check(agent: &Agent, trap: Trap, count: u64, threads: u32, outcome: &str) -> Results {
    let before = agent.metrics();
    let mut child = Child::spawn(&event(trap, count, threads), "trapper");
    let series = series(trap, &child, "trapper", outcome);
    let results = child.run();
    assert_eq!(results.get("made"), count);
    let metrics = agent.metrics();
    let case = format!("{trap:?} {count} over {threads}");
    assert_eq!(metrics.count(&series), count, "{case}: {series}");
    let host = host_series(trap, outcome);
    assert_eq!(
        metrics.count(&host) - before.count(&host),
        count,
        "{case}: {host}"
    );
    // And nowhere else.
    assert_eq!(host_sum(&metrics) - host_sum(&before), count, "{case}");
    let own: Vec<_> = metrics
        .with_label("pid", &child.pid().to_string())
        .into_iter()
        .chain(metrics.with_label("id", &vm_id(child.pid())))
        .filter(|(name, _)| name.contains("_traps_total") || name.contains("alignment"))
        .collect();
    assert_eq!(own.len(), 1, "{case}: {own:?}");
    check_stories(&agent.snapshot(), trap, child.pid());
    child.end();
    assert_eq!(
        agent.metrics().count(&series),
        count,
        "{case}: after its end"
    );
    results
}

/// The stories tell where it was.
#[track_caller]
fn check_stories(snapshot: &Value, trap: Trap, pid: u32) {
    let stories: Vec<&Value> = snapshot["recent"]
        .as_array()
        .expect("recent is a list")
        .iter()
        .filter(|story| story["pid"] == pid)
        .collect();
    assert!(!stories.is_empty());
    for story in stories {
        // The kernel's own functions are told the instruction pointer.
        if story["probe"] != "signal_generate" || trap == Trap::UserSplitLock {
            assert_eq!(story["ip"], format!("{IP:#x}"), "{story}");
        }
    }
}

fn warnings_are_counted(via: &str) {
    let _mode = set_mode(Mode::Warn).expect("the mode is set");
    let agent = agent(via, &[]);
    for function in &FUNCTIONS[..2] {
        assert_eq!(agent.via(function), via);
    }
    for trap in [Trap::UserSplitLock, Trap::GuestSplitLock] {
        for (count, threads) in [(1, 1), (2, 1), (20, 1), (20, 4)] {
            let results = check(&agent, trap, count, threads, "warned");
            assert_eq!(results.get("returned_true"), count);
            assert_eq!(results.get("bus_adraln"), 0);
        }
    }
    assert_nothing_untracked(&agent);
}

fn signals_are_counted(via: &str) {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = agent(via, &[]);
    for trap in [Trap::UserSplitLock, Trap::GuestSplitLock] {
        for (count, threads) in [(1, 1), (2, 1), (1000, 1), (1000, 4)] {
            let results = check(&agent, trap, count, threads, "sigbus");
            assert_eq!(results.get("returned_false"), count);
            assert_eq!(results.get("bus_adraln"), count);
        }
    }
    assert_nothing_untracked(&agent);
}

fn bus_locks_are_counted(via: &str) {
    let mode = set_mode(Mode::Warn).expect("the mode is set");
    let agent = agent(via, &[]);
    assert_eq!(agent.via("handle_bus_lock"), via);
    for (count, threads) in [(1, 1), (2, 1), (1000, 4)] {
        check(&agent, Trap::BusLock, count, threads, "warned");
    }
    mode.change(Mode::Fatal).expect("the mode is set");
    for (count, threads) in [(1, 1), (2, 1), (1000, 4)] {
        let results = check(&agent, Trap::BusLock, count, threads, "sigbus");
        assert_eq!(results.get("bus_adraln"), count);
    }
    assert_nothing_untracked(&agent);
}

#[track_caller]
pub fn assert_nothing_untracked(agent: &Agent) {
    let metrics = agent.metrics();
    for cause in [
        "call_untracked",
        "task_unreadable",
        "signal_unreadable",
        "trap_ledger_full",
    ] {
        let series = format!(r#"splitlock_lost_total{{cause="{cause}"}}"#);
        assert_eq!(metrics.get(&series), Some(0.0), "{series}");
    }
}

/// Without any choice of the test's: the rungs that the plan takes on this kernel.
fn the_agents_own_choice_counts() {
    let mode = set_mode(Mode::Warn).expect("the mode is set");
    let agent = Agent::start(&[]);
    let expected = if requirements::is_preemptible() {
        "kprobe"
    } else {
        // Or kprobe, where the kernel's model is not known.
        "fentry"
    };
    let via = agent.via("handle_user_split_lock");
    assert!(via == expected || via == "kprobe", "{via}");
    let locks = [Trap::UserSplitLock, Trap::GuestSplitLock];
    for trap in locks {
        check(&agent, trap, 20, 4, "warned");
    }
    mode.change(Mode::Fatal).expect("the mode is set");
    for trap in locks {
        check(&agent, trap, 1000, 4, "sigbus");
    }
    if BusLocks.check().is_ok() {
        check(&agent, Trap::BusLock, 1000, 4, "sigbus");
    }
}

/// A fatal bus lock leaves nothing but its signal, which says what it was where only `#DB` is
/// armed.
fn signal_generate_counts_bus_locks_where_only_they_are_armed() {
    let mut mode = set_mode(Mode::Fatal).expect("the mode is set");
    mode.set_cpu_flags(false, true).expect("the flags are set");
    let agent = agent("none", &[]);
    check(&agent, Trap::BusLock, 100, 2, "sigbus");
}

/// The ways to attach a function that are exact on this kernel.
fn exact_ways() -> &'static [&'static str] {
    if requirements::is_preemptible() {
        &["kprobe"]
    } else {
        &["fentry", "kprobe"]
    }
}

fn signal_generate_counts_where_the_functions_cannot() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    for via in ["raw_tracepoint", "tracepoint"] {
        let choice = format!("--probe=signal_generate={via}");
        let agent = agent("none", &[&choice]);
        assert_eq!(agent.via("signal_generate"), via);
        for trap in [Trap::UserSplitLock, Trap::GuestSplitLock] {
            for (count, threads) in [(1, 1), (2, 1), (1000, 4)] {
                check(&agent, trap, count, threads, "sigbus");
            }
        }
    }
}

/// The log names a thread once (5.19+) or is rate limited (before), so each thread traps once.
fn the_kernel_log_counts_where_nothing_else_can() {
    let _mode = set_mode(Mode::Warn).expect("the mode is set");
    // Ten lines per five seconds, of whatever test: an interval of its own.
    std::thread::sleep(Duration::from_secs(6));
    let agent = agent("none", &[]);
    assert_eq!(agent.via("kernel_log"), "kmsg");
    let mut child = Child::spawn(&event(Trap::UserSplitLock, 3, 3), "logged");
    child.run();
    let reports = r#"splitlock_kernel_log_reports_total{trap="split_lock"}"#;
    let metrics = agent.wait_for("three reports", |metrics| metrics.count(reports) == 3);
    let host = host_series(Trap::UserSplitLock, "warned");
    assert_eq!(metrics.count(&host), 3);
    // Threads that are gone when the log is read stand for themselves, by pid; the sum is what
    // they made. (The workers end before the child reports.)
    let sum: f64 = metrics
        .family("splitlock_process_traps_total")
        .values()
        .sum();
    assert_eq!(sum, 3.0, "{metrics:#?}");

    // With the functions attached the log counts nothing, and reports go on.
    drop(agent);
    let agent = Agent::start(&[]);
    let mut child = Child::spawn(&event(Trap::UserSplitLock, 1, 1), "logged");
    child.run();
    let metrics = agent.wait_for("a report", |metrics| metrics.count(reports) == 1);
    assert_eq!(metrics.count(&host), 1);
    let history = r#"splitlock_kernel_log_history_reports{trap="split_lock"}"#;
    assert!(metrics.count(history) >= 3);
}

fn alignment_checks_are_no_locks_in_any_mode() {
    let mode = set_mode(Mode::Warn).expect("the mode is set");
    for via in exact_ways().iter().chain(&["none"]) {
        let agent = agent(via, &[]);
        for wanted in [Mode::Off, Mode::Warn, Mode::Fatal] {
            mode.change(wanted).expect("the mode is set");
            let mut child = Child::spawn(&event(Trap::AlignmentCheck, 100, 2), "checker");
            let results = child.run();
            assert_eq!(results.get("returned_false"), 100);
            let metrics = agent.metrics();
            let series = format!(
                r#"splitlock_process_alignment_checks_total{{comm="checker",pid="{}"}}"#,
                child.pid()
            );
            assert_eq!(metrics.count(&series), 100, "{via} {wanted:?}");
            assert_eq!(host_sum(&metrics), 0, "{via} {wanted:?}");
        }
    }
}

fn many_processes_at_once_are_told_apart() {
    let mode = set_mode(Mode::Warn).expect("the mode is set");
    for (wanted, outcome, count) in [(Mode::Warn, "warned", 5), (Mode::Fatal, "sigbus", 250)] {
        mode.change(wanted).expect("the mode is set");
        for via in exact_ways() {
            let agent = agent(via, &[]);
            let traps = [Trap::UserSplitLock, Trap::GuestSplitLock];
            let mut children: Vec<(Trap, Child, String)> = (0..6)
                .map(|index| {
                    let trap = traps[index % 2];
                    let comm = format!("crowd-{index}");
                    let made = count + index as u64;
                    let child = Child::spawn(&event(trap, made, 1), &comm);
                    let series = series(trap, &child, &comm, outcome);
                    (trap, child, series)
                })
                .collect();
            for (_, child, _) in &mut children {
                child.go();
            }
            for (_, child, _) in &mut children {
                child.results();
            }
            let metrics = agent.metrics();
            for (index, (trap, _, series)) in children.iter().enumerate() {
                let made = count + index as u64;
                assert_eq!(metrics.count(series), made, "{via} {trap:?} {series}");
            }
            assert_eq!(host_sum(&metrics), 6 * count + 15, "{via}");
            assert_nothing_untracked(&agent);
        }
    }
}

fn those_that_die_of_it_are_named() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    for via in ["fentry", "kprobe", "none"] {
        let agent = agent(via, &[]);
        for trap in [Trap::UserSplitLock, Trap::GuestSplitLock] {
            let mut child = Child::spawn(&Event::TrapModuleFatal { trap, ip: IP }, "mortal");
            let series = series(trap, &child, "mortal", "sigbus");
            child.go();
            let status = child.end();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(libc::SIGBUS)
            );
            assert_eq!(agent.metrics().count(&series), 1, "{via}: {series}");
        }
    }
}

fn past_the_limit_locks_are_in_the_overflow() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = Agent::start(&["--limit.processes", "2", "--limit.vms", "1"]);
    let mut children: Vec<Child> = (0..4)
        .map(|_| Child::spawn(&event(Trap::UserSplitLock, 10, 1), "limited"))
        .chain((0..3).map(|_| Child::spawn(&event(Trap::GuestSplitLock, 7, 1), "limited-vm")))
        .collect();
    for child in &mut children {
        child.run();
        agent.metrics();
    }
    let check = |metrics: &Metrics| {
        let overflow = |kind| {
            metrics.count(&format!(
                r#"splitlock_overflow_traps_total{{kind="{kind}"}}"#
            ))
        };
        assert_eq!(overflow("process"), 20);
        assert_eq!(overflow("vm"), 14);
        assert_eq!(metrics.family("splitlock_process_traps_total").len(), 2);
        assert_eq!(metrics.family("splitlock_vm_traps_total").len(), 1);
        assert_eq!(
            metrics.count(&host_series(Trap::UserSplitLock, "sigbus")),
            40
        );
        assert_eq!(
            metrics.count(&host_series(Trap::GuestSplitLock, "sigbus")),
            21
        );
    };
    check(&agent.metrics());
    for child in children {
        child.end();
    }
    // Those that are shown tell when the agent knows of their end.
    let start = Instant::now();
    loop {
        let snapshot = agent.snapshot();
        let rows =
            ["processes", "vms"].map(|kind| snapshot[kind].as_array().expect("a list").clone());
        if rows.iter().flatten().all(|row| row["alive"] == false) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{snapshot:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
    check(&agent.metrics());
}
