//! A machine that sleeps. While it does, boot time goes on and the monotonic clock stands still.

use std::{
    fs::{self, File},
    io::Write as _,
    thread,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    super::{
        Test,
        agent::Agent,
        events::{
            Child,
            trap_module::{Mode, Trap, set_mode},
        },
        guests::vm_id,
        requirements::Requirement::{Kvm, Root, Sleep, TrapModule},
        traps::{event, series},
    },
    clock::now,
    work::{Amount, assert_locks, disturbed},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults_of_the_machine::sleep_in_the_middle_of_work_costs_no_count",
        needs: &[Root, Kvm, TrapModule, Sleep],
        run: sleep_in_the_middle_of_work_costs_no_count,
    },
    Test {
        name: "faults_of_the_machine::sleep_confuses_neither_times_nor_names",
        needs: &[Root, TrapModule, Sleep],
        run: sleep_confuses_neither_times_nor_names,
    },
];

const STATE: &str = "/sys/power/state";
/// How deep `mem` is. The clock wakes QEMU's machines from `deep` (ACPI S3) alone: from an idle that is
/// merely long (`s2idle`) it does not, as its interrupt comes from the firmware's registers then.
const DEPTH: &str = "/sys/power/mem_sleep";
const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";
/// How long it sleeps. The alarm has whole seconds, and a moment may pass before it sleeps.
const SECONDS: u64 = 6;

/// Whether the machine can sleep, and wake again.
pub fn available() -> Result<(), String> {
    let states = fs::read_to_string(STATE).map_err(|error| format!("{STATE}: {error}"))?;
    if !states.split_whitespace().any(|state| state == "freeze") {
        return Err(format!(
            "the machine cannot sleep: {STATE} offers {states:?}"
        ));
    }
    match fs::exists(ALARM) {
        Ok(true) => Ok(()),
        _ => Err(format!("nothing would wake the machine: no {ALARM}")),
    }
}

/// How far boot time is ahead of the monotonic clock: the time slept.
fn slept() -> Duration {
    let time = |clock| {
        let time = clock_gettime(clock);
        Duration::new(
            time.tv_sec.unsigned_abs(),
            time.tv_nsec.unsigned_abs() as u32,
        )
    };
    time(ClockId::Boottime).saturating_sub(time(ClockId::Monotonic))
}

/// Sleeps, and checks that it did.
fn sleep() {
    let before = slept();
    let alarm = |text: String| File::create(ALARM)?.write_all(text.as_bytes());
    // An earlier one that never came would be in the way.
    let _ = alarm("0".to_owned());
    alarm(format!("+{SECONDS}")).expect("the alarm is set");
    fs::write(DEPTH, "deep").expect("it sleeps as deep as that");
    fs::write(STATE, "mem").expect("the machine sleeps");
    let slept = slept().saturating_sub(before);
    assert!(
        slept >= Duration::from_secs(SECONDS / 2),
        "it slept {slept:?} instead of {SECONDS} s"
    );
}

fn sleep_in_the_middle_of_work_costs_no_count() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = Agent::start(&[]);
    let amount = Amount {
        locks: 40_000,
        exits: 20_000,
    };
    let times = disturbed(&agent, amount, |times| {
        if times == 0 {
            sleep();
        } else {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(times >= 1, "all had ended before it slept");
    assert_eq!(agent.get("/healthz"), "ok\n");
}

fn sleep_confuses_neither_times_nor_names() {
    const COUNT: u64 = 50;
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    // Less than the machine sleeps.
    let agent = Agent::start(&["--retention", "4s"]);
    let trapped = |comm: &str| {
        let mut child = Child::spawn(&event(Trap::UserSplitLock, COUNT, 1), comm);
        child.run();
        child
    };
    let own = |child: &Child, comm: &str| series(Trap::UserSplitLock, child, comm, "sigbus");
    let last = |child: &Child, comm: &str| {
        let series = format!(
            r#"splitlock_process_last_trap_timestamp_seconds{{comm="{comm}",pid="{}"}}"#,
            child.pid()
        );
        agent.metrics().get(&series).expect("a time")
    };
    let early = trapped("early");
    let dead = trapped("dead");
    let dead_series = own(&dead, "dead");
    let early_last = last(&early, "early");
    assert_locks(&agent.metrics(), &dead_series, COUNT);
    dead.end();
    sleep();
    // Nobody could have scraped it meanwhile.
    assert_locks(&agent.metrics(), &dead_series, COUNT);
    let woken = now();
    let late = trapped("late");
    assert!((woken - 1.0..=now() + 1.0).contains(&last(&late, "late")));
    let moved = last(&early, "early") - early_last;
    assert!(moved.abs() < 1.0, "its time moved by {moved} s");
    assert_locks(&agent.metrics(), &own(&early, "early"), COUNT);
    assert_locks(&agent.metrics(), &own(&late, "late"), COUNT);
    let snapshot = agent.snapshot();
    let processes = snapshot["processes"].as_array().expect("a list");
    let recent = snapshot["recent"].as_array().expect("a list");
    for child in [&early, &late] {
        let own = processes.iter().find(|one| one["pid"] == child.pid());
        let own = own.unwrap_or_else(|| panic!("{} of {processes:#?}", child.pid()));
        // A start time that did not fit would have it taken for another process, and ended.
        assert_eq!(own["alive"], true, "{own}");
        assert!(
            own["exe"].as_str().is_some_and(|exe| !exe.is_empty()),
            "{own}"
        );
        let ticks = vm_id(child.pid());
        let ticks = ticks.split('-').nth(1).expect("PID-START");
        assert_eq!(own["start_ticks"].to_string(), ticks, "{own}");
        // The window of its records' rate is a second of the kernel's clock.
        let events = recent.iter().filter(|event| event["pid"] == child.pid());
        assert!(events.count() >= 1);
    }
    agent.wait_for("the end of the retention", |metrics| {
        metrics.get(&dead_series).is_none()
    });
}
