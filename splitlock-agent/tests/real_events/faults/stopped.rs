//! An agent that does not run for a while, as on a host without a CPU to spare: the kernel side
//! goes on, within what its maps hold.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::super::{
    Test,
    agent::{Agent, Metrics},
    crowds::crowd,
    events::{Child, Event, crowd::Each, kvm_guest::Guest},
    guests::vm,
    processes::checks,
    requirements::{
        self,
        Requirement::{AlignmentChecks, Kvm, Root},
        missed,
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults::stopped_for_ten_seconds_it_has_every_count",
        needs: &[Root, Kvm, AlignmentChecks],
        run: stopped_for_ten_seconds_it_has_every_count,
    },
    Test {
        name: "faults::what_finds_the_ring_buffer_full_is_counted",
        needs: &[Root, AlignmentChecks],
        run: what_finds_the_ring_buffer_full_is_counted,
    },
    Test {
        name: "faults::what_finds_the_trap_ledger_full_is_counted",
        needs: &[Root, AlignmentChecks],
        run: what_finds_the_trap_ledger_full_is_counted,
    },
];

const STOP: Duration = Duration::from_secs(10);

/// An agent that is stopped until this value is dropped.
struct Stopped<'a>(&'a Agent);

impl<'a> Stopped<'a> {
    #[track_caller]
    fn stop(agent: &'a Agent) -> Self {
        signal(agent, libc::SIGSTOP);
        Self(agent)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        signal(self.0, libc::SIGCONT);
    }
}

fn signal(agent: &Agent, signal: i32) {
    // SAFETY: the agent is a child that was not waited for, so its pid is its own.
    let status = unsafe { libc::kill(agent.pid().cast_signed(), signal) };
    assert_eq!(status, 0, "kill");
}

fn lost(metrics: &Metrics, cause: &str) -> u64 {
    metrics.count(&format!(r#"splitlock_lost_total{{cause="{cause}"}}"#))
}

fn stopped_for_ten_seconds_it_has_every_count() {
    const TRAPS: u64 = 1000;
    let guest_traps = if requirements::in_rig() { 50 } else { 500 };
    let agent = Agent::start(&[]);
    let mut before = Child::spawn(&checks_of(TRAPS), "stop-before");
    before.run();
    let stopped = Stopped::stop(&agent);
    let start = Instant::now();
    // One that lives on, one that has ended by the time, and a guest.
    let mut living = Child::spawn(&checks_of(TRAPS), "stop-living");
    living.run();
    let mut ended = Child::spawn(&checks_of(TRAPS), "stop-ended");
    ended.run();
    let ended_pid = ended.pid();
    ended.end();
    let event = Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count: guest_traps,
        vcpus: 1,
    };
    let mut guest = Child::spawn(&event, "stop-guest");
    guest.run();
    thread::sleep(STOP.saturating_sub(start.elapsed()));
    drop(stopped);
    let metrics = agent.wait_for("the one that had ended", |metrics| {
        metrics.count(&checks("stop-ended", ended_pid)) > 0
    });
    let mut skipped = missed(&metrics, "signal_generate") + missed(&metrics, "kvm_inj_exception");
    let vm = vm(guest.pid(), "stop-guest");
    for (series, made) in [
        (checks("stop-before", before.pid()), TRAPS),
        (checks("stop-living", living.pid()), TRAPS),
        (checks("stop-ended", ended_pid), TRAPS),
        (
            format!("splitlock_vm_ac_injected_total{{{vm}}}"),
            guest_traps,
        ),
    ] {
        let counted = metrics.count(&series);
        assert!(counted <= made, "{series} {counted} of {made}");
        let uncounted = made - counted;
        assert!(uncounted <= skipped, "{series} {counted} of {made}");
        skipped -= uncounted;
    }
}

const fn checks_of(count: u64) -> Event {
    Event::AlignmentCheck { count, threads: 1 }
}

/// Many times what the ring buffer holds.
fn what_finds_the_ring_buffer_full_is_counted() {
    const TRAPS: u64 = 20_000;
    let agent = Agent::start(&["--limit.records-per-second", "1000000"]);
    let mut child = Child::spawn(&checks_of(TRAPS), "ring-full");
    let before = lost(&agent.metrics(), "record_ring_full");
    let stopped = Stopped::stop(&agent);
    child.run();
    drop(stopped);
    let series = checks("ring-full", child.pid());
    // Its records were before the counts that this has.
    let metrics = agent.wait_for("the process", |metrics| metrics.get(&series).is_some());
    let counted = metrics.count(&series);
    let skipped = missed(&metrics, "signal_generate");
    assert!(counted <= TRAPS && counted + skipped >= TRAPS, "{counted}");
    let lost = lost(&metrics, "record_ring_full") - before;
    let told = records(&agent, child.pid());
    eprintln!("{counted} traps: {told} records, {lost} lost");
    assert!(lost > TRAPS / 2, "the ring buffer was not full: {lost}");
    // Others' records, of tests that run meanwhile, may be lost as well.
    assert!(told <= counted, "{told} records of {counted}");
    assert!(told + lost >= counted, "{told} told, {lost} lost");
}

/// Records that came of a process, those of all its sites.
#[track_caller]
fn records(agent: &Agent, pid: u32) -> u64 {
    let snapshot = agent.snapshot();
    let processes = snapshot["processes"].as_array().expect("a list");
    let process = processes
        .iter()
        .find(|process| process["pid"] == pid)
        .expect("the process");
    let sites = process["sites"].as_array().expect("its sites");
    sites
        .iter()
        .map(|site| site["records"].as_u64().expect("a number"))
        .sum()
}

/// While nobody frees the entries of those that have ended, the ledger fills.
fn what_finds_the_trap_ledger_full_is_counted() {
    /// Kept for subjects without series, whatever the limits.
    const SPARE: u64 = 8192;
    const CROWD: u32 = 9000;
    const MAKER: &str = "ledger-full";
    let agent = Agent::start(&["--limit.processes", "1", "--limit.vms", "0"]);
    let stopped = Stopped::stop(&agent);
    crowd(Each::AlignmentCheck, MAKER, CROWD);
    drop(stopped);
    let made = u64::from(CROWD);
    let metrics = agent.wait_for("losses", |metrics| {
        lost(metrics, "trap_ledger_full") >= made - (SPARE + 1)
    });
    let lost = lost(&metrics, "trap_ledger_full");
    eprintln!("{made} subjects: {lost} events without an entry");
    // Entries go again, and who comes then is counted.
    let entries = |metrics: &Metrics| {
        metrics
            .get(r#"splitlock_ledger_entries{ledger="traps"}"#)
            .expect("the ledger's gauge")
    };
    agent.wait_for("room", |metrics| entries(metrics) < 4000.0);
    let before = self::lost(&agent.metrics(), "trap_ledger_full");
    let mut late = Child::spawn(&checks_of(5), "ledger-late");
    late.run();
    assert_eq!(
        self::lost(&agent.metrics(), "trap_ledger_full"),
        before,
        "there was room"
    );
}
