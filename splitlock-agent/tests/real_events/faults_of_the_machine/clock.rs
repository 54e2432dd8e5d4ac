//! A clock that somebody sets: back and forward, by hours and past 2038.

use std::{thread, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{
    super::{
        Test,
        agent::Agent,
        events::{
            Child,
            trap_module::{Mode, Trap, set_mode},
        },
        requirements::Requirement::{Kvm, Root, TrapModule},
        traps::{event, host_sum, series},
    },
    work::{Amount, assert_locks, disturbed},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults_of_the_machine::times_follow_a_clock_that_jumps_and_counts_do_not_care",
        needs: &[Root, TrapModule],
        run: times_follow_a_clock_that_jumps_and_counts_do_not_care,
    },
    Test {
        name: "faults_of_the_machine::a_clock_that_jumps_all_the_time_costs_no_count",
        needs: &[Root, Kvm, TrapModule],
        run: a_clock_that_jumps_all_the_time_costs_no_count,
    },
    Test {
        name: "faults_of_the_machine::retention_goes_by_the_time_that_passes",
        needs: &[Root, TrapModule],
        run: retention_goes_by_the_time_that_passes,
    },
];

const HOUR: i64 = 3600;
/// 2040-01-01: past what 32 bits of seconds hold.
const LATE: i64 = 2_208_988_800;
/// 1971-01-01.
const EARLY: i64 = 31_536_000;

/// The clock, which is right again when this value is dropped.
pub struct WallClock {
    /// The wall's time at boot.
    boot: i64,
}

impl WallClock {
    pub fn take() -> Self {
        Self {
            boot: seconds(ClockId::Realtime) - seconds(ClockId::Boottime),
        }
    }

    /// Sets it.
    #[track_caller]
    pub fn set(&self, seconds: i64) {
        set(seconds).expect("root may set the clock");
    }

    /// As if nobody had set it.
    pub fn right(&self) -> i64 {
        self.boot + seconds(ClockId::Boottime)
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        if let Err(error) = set(self.right()) {
            eprintln!("the clock stays wrong: {error}");
        }
    }
}

fn set(seconds: i64) -> rustix::io::Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    clock_settime(ClockId::Realtime, time)
}

fn seconds(clock: ClockId) -> i64 {
    clock_gettime(clock).tv_sec
}

/// The wall's time.
pub fn now() -> f64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn times_follow_a_clock_that_jumps_and_counts_do_not_care() {
    const COUNT: u64 = 100;
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let clock = WallClock::take();
    let agent = Agent::start(&[]);
    let mut counted: Vec<String> = vec![];
    let jumps = [
        ("none", clock.right()),
        ("5 h forward", clock.right() + 5 * HOUR),
        ("10 h back", clock.right() - 5 * HOUR),
        ("past 2038", LATE),
        ("to 1971", EARLY),
        ("back again", clock.right()),
    ];
    for (index, (what, time)) in jumps.into_iter().enumerate() {
        let before = host_sum(&agent.metrics());
        clock.set(time);
        let comm = format!("jump-{index}");
        let mut child = Child::spawn(&event(Trap::UserSplitLock, COUNT, 1), &comm);
        let own = series(Trap::UserSplitLock, &child, &comm, "sigbus");
        let earliest = now();
        assert_eq!(child.run().get("made"), COUNT);
        let metrics = agent.metrics();
        assert_locks(&metrics, &own, COUNT);
        assert!(host_sum(&metrics) > before, "{what}");
        let last = format!(
            r#"splitlock_process_last_trap_timestamp_seconds{{comm="{comm}",pid="{}"}}"#,
            child.pid()
        );
        let last = metrics.get(&last).expect("the time of its last trap");
        let is_now = |time: f64| earliest - 1.0 <= time && time <= now() + 1.0;
        assert!(is_now(last), "{what}: {last}, and it was {earliest}");
        let snapshot = agent.snapshot();
        let recent = snapshot["recent"].as_array().expect("a list");
        let event = recent.iter().find(|event| event["pid"] == child.pid());
        let event = event.expect("it has an event");
        assert!(
            is_now(event["time"].as_f64().expect("a time")),
            "{what}: {event}"
        );
        child.end();
        counted.push(own);
        // Those before it have what they had: nobody is forgotten early, or counted again.
        let metrics = agent.metrics();
        for series in &counted {
            assert_locks(&metrics, series, COUNT);
        }
    }
    assert_eq!(agent.get("/healthz"), "ok\n");
}

fn a_clock_that_jumps_all_the_time_costs_no_count() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let clock = WallClock::take();
    let agent = Agent::start(&[]);
    let amount = Amount {
        locks: 20_000,
        exits: 10_000,
    };
    let times = disturbed(&agent, amount, |times| {
        let hours = i64::from(times % 5) - 2;
        clock.set(clock.right() + hours * HOUR);
        thread::sleep(Duration::from_millis(20));
    });
    assert!(times >= 4, "only {times} times");
}

/// Neither does a jump forward take series away early, nor one back keep them for hours.
fn retention_goes_by_the_time_that_passes() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let clock = WallClock::take();
    let agent = Agent::start(&["--retention", "10s"]);
    let mut child = Child::spawn(&event(Trap::UserSplitLock, 1, 1), "retained");
    let own = series(Trap::UserSplitLock, &child, "retained", "sigbus");
    child.run();
    assert_eq!(agent.metrics().get(&own), Some(1.0));
    child.end();
    clock.set(clock.right() + 5 * HOUR);
    assert_eq!(agent.metrics().get(&own), Some(1.0), "forgotten early");
    clock.set(clock.right() - 5 * HOUR);
    agent.wait_for("the end of the retention", |metrics| {
        metrics.get(&own).is_none()
    });
}
