//! The modes of detection, in the rig: what each costs the offender, and whether the host would
//! notice.

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{
        Child, Event,
        trap_module::{Mode, Trap, set_mode},
    },
    requirements::Requirement::{
        BusLocks, ExactFentry, Mitigation, Penalty, Ratelimit, TrapModule,
    },
    traps::{IP, agent, assert_nothing_untracked, event, host_sum, labels, series, vm_id},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "modes::fentry_measures_the_delay",
        needs: &[TrapModule, Penalty, ExactFentry],
        run: || the_delay_is_measured("fentry"),
    },
    Test {
        name: "modes::kprobe_measures_the_delay",
        needs: &[TrapModule, Penalty],
        run: || the_delay_is_measured("kprobe"),
    },
    Test {
        name: "modes::without_mitigation_there_is_hardly_a_delay",
        needs: &[TrapModule, Mitigation],
        run: without_mitigation_there_is_hardly_a_delay,
    },
    Test {
        name: "modes::ratelimit_mode_throttles_bus_locks",
        needs: &[TrapModule, Ratelimit],
        run: ratelimit_mode_throttles_bus_locks,
    },
    Test {
        name: "modes::bus_locks_are_nothing_in_off_mode",
        needs: &[TrapModule, BusLocks],
        run: bus_locks_are_nothing_in_off_mode,
    },
    Test {
        name: "modes::the_mode_is_read_from_memory",
        needs: &[TrapModule],
        run: the_mode_is_read_from_memory,
    },
    Test {
        name: "modes::the_host_says_who_would_be_noticed",
        needs: &[TrapModule, Ratelimit],
        run: the_host_says_who_would_be_noticed,
    },
];

fn delay(metrics: &Metrics, trap: Trap, child: &Child, comm: &str) -> f64 {
    let series = match labels(trap).0 {
        "guest" => format!(
            r#"splitlock_vm_delay_seconds_total{{vm="{comm}",id="{}"}}"#,
            vm_id(child.pid())
        ),
        _ => format!(
            r#"splitlock_process_delay_seconds_total{{comm="{comm}",pid="{}"}}"#,
            child.pid()
        ),
    };
    metrics.get(&series).unwrap_or(0.0)
}

/// The module measures around the kernel's functions: never less than the agent inside them.
fn the_delay_is_measured(via: &str) {
    let _mode = set_mode(Mode::Warn).expect("the mode is set");
    let agent = agent(via, &[]);
    let mut undisturbed = 0.0;
    for trap in [Trap::GuestSplitLock, Trap::UserSplitLock] {
        let mut child = Child::spawn(&event(trap, 20, 1), "delayed");
        let outside = child.run().get("nanoseconds") as f64 / 1e9;
        undisturbed = delay(&agent.metrics(), trap, &child, "delayed");
        assert!(
            undisturbed >= 0.2,
            "{trap:?}: 20 penalties in {undisturbed} s"
        );
        assert!(
            undisturbed <= outside,
            "{trap:?}: {undisturbed} s of {outside} s"
        );
    }
    // A signal ends a penalty early.
    let disturbed = Event::TrapModule {
        trap: Trap::UserSplitLock,
        ip: IP,
        count: 20,
        threads: 1,
        disturbed: true,
    };
    let mut child = Child::spawn(&disturbed, "disturbed");
    let results = child.run();
    assert!(results.get("signals") > 0);
    let metrics = agent.metrics();
    let inside = delay(&metrics, Trap::UserSplitLock, &child, "disturbed");
    assert!(
        inside < 0.85 * undisturbed,
        "20 penalties took {undisturbed} s, and {inside} s where signals ended them early"
    );
    let series = series(Trap::UserSplitLock, &child, "disturbed", "warned");
    assert_eq!(metrics.count(&series), 20);
    assert_nothing_untracked(&agent);
}

fn without_mitigation_there_is_hardly_a_delay() {
    let mut mode = set_mode(Mode::Warn).expect("the mode is set");
    mode.set_mitigation(true).expect("the sysctl is root's");
    let agent = Agent::start(&[]);
    let enabled = "splitlock_host_mitigation_enabled";
    let changes = "splitlock_host_detection_changes_total";
    let metrics = agent.metrics();
    assert_eq!(metrics.get(enabled), Some(1.0));
    let before = metrics.count(changes);
    mode.set_mitigation(false).expect("the sysctl is root's");
    let mut child = Child::spawn(&event(Trap::UserSplitLock, 10, 1), "unmitigated");
    child.run();
    let metrics = agent.metrics();
    mode.set_mitigation(true).expect("the sysctl is root's");
    assert_eq!(metrics.get(enabled), Some(0.0));
    assert_eq!(metrics.count(changes), before + 1);
    let inside = delay(&metrics, Trap::UserSplitLock, &child, "unmitigated");
    assert!(inside < 0.1, "ten traps without a penalty took {inside} s");
    assert_eq!(agent.metrics().count(changes), before + 2);
}

fn ratelimit_mode_throttles_bus_locks() {
    let _mode = set_mode(Mode::Ratelimit { per_second: 10 }).expect("the mode is set");
    for via in ["fentry", "kprobe"] {
        let agent = agent(via, &[]);
        agent.wait_for("the mode", |metrics| {
            metrics.get(r#"splitlock_host_detection_mode{mode="ratelimit"}"#) == Some(1.0)
        });
        let mut child = Child::spawn(&event(Trap::BusLock, 30, 1), "throttled");
        let results = child.run();
        let metrics = agent.metrics();
        let count = |outcome| metrics.count(&series(Trap::BusLock, &child, "throttled", outcome));
        let (warned, throttled) = (count("warned"), count("throttled"));
        assert_eq!(warned + throttled, 30, "{via}");
        assert!(throttled >= 1, "{via}: {throttled} throttled");
        let inside = delay(&metrics, Trap::BusLock, &child, "throttled");
        let outside = results.get("nanoseconds") as f64 / 1e9;
        assert!(inside >= 0.02 * throttled as f64, "{via}: {inside} s");
        assert!(inside <= outside, "{via}: {inside} s of {outside} s");
    }
}

fn bus_locks_are_nothing_in_off_mode() {
    let _mode = set_mode(Mode::Off).expect("the mode is set");
    let agent = Agent::start(&[]);
    agent.wait_for("the mode", |metrics| {
        metrics.get(r#"splitlock_host_detection_source_info{source="memory"}"#) == Some(1.0)
    });
    let mut child = Child::spawn(&event(Trap::BusLock, 10, 1), "off");
    child.run();
    assert_eq!(host_sum(&agent.metrics()), 0);
}

fn the_mode_is_read_from_memory() {
    let mode = set_mode(Mode::Warn).expect("the mode is set");
    let agent = Agent::start(&[]);
    agent.wait_for("the mode from memory", |metrics| {
        metrics.get(r#"splitlock_host_detection_source_info{source="memory"}"#) == Some(1.0)
    });
    // The emulated CPU has no detection, so that "off" is "unsupported".
    let modes = [
        ("fatal", Mode::Fatal),
        ("unsupported", Mode::Off),
        ("warn", Mode::Warn),
    ];
    for (name, wanted) in modes {
        let changes = "splitlock_host_detection_changes_total";
        let before = agent.metrics().count(changes);
        mode.change(wanted).expect("the mode is set");
        let metrics = agent.metrics();
        let series = format!(r#"splitlock_host_detection_mode{{mode="{name}"}}"#);
        assert_eq!(metrics.get(&series), Some(1.0), "{series}");
        let sum: f64 = metrics
            .family("splitlock_host_detection_mode")
            .values()
            .sum();
        assert_eq!(sum, 1.0);
        assert_eq!(metrics.count(changes), before + 1, "{name}");
        // In fatal mode each lock is trapped, in warn mode not.
        let every = metrics
            .family("splitlock_probe_attached")
            .into_keys()
            .any(|series| {
                series.contains(r#""handle_user_split_lock""#) && series.contains("every_trap")
            });
        assert_eq!(every, wanted == Mode::Fatal, "{name}");
        for origin in ["user", "guest"] {
            let series = format!(r#"splitlock_host_sees{{origin="{origin}"}}"#);
            assert_eq!(metrics.get(&series), Some(0.0), "{series} in {name}");
        }
    }
}

fn the_host_says_who_would_be_noticed() {
    let mut mode = set_mode(Mode::Warn).expect("the mode is set");
    let rate = Mode::Ratelimit { per_second: 100 };
    for ((split, bus), seen) in [
        (
            (true, true),
            [
                (Mode::Warn, true, true),
                (Mode::Fatal, true, true),
                (rate, true, false),
                (Mode::Off, false, false),
            ],
        ),
        (
            (false, true),
            [
                (Mode::Warn, true, false),
                (Mode::Fatal, true, false),
                (rate, true, false),
                (Mode::Off, false, false),
            ],
        ),
    ] {
        mode.set_cpu_flags(split, bus).expect("the flags are set");
        let agent = Agent::start(&[]);
        agent.wait_for("the mode from memory", |metrics| {
            metrics.get(r#"splitlock_host_detection_source_info{source="memory"}"#) == Some(1.0)
        });
        for (wanted, user, guest) in seen {
            mode.change(wanted).expect("the mode is set");
            let metrics = agent.metrics();
            for (origin, sees) in [("user", user), ("guest", guest)] {
                let series = format!(r#"splitlock_host_sees{{origin="{origin}"}}"#);
                let expected = if sees { 1.0 } else { 0.0 };
                assert_eq!(
                    metrics.get(&series),
                    Some(expected),
                    "{series} {split} {bus} {wanted:?}"
                );
            }
        }
    }
}
