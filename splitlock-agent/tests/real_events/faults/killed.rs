//! An agent that is killed without a word, in the middle of a storm.

use std::{collections::BTreeSet, env};

use super::super::{
    Test,
    agent::Agent,
    events::{Child, Event},
    processes::checks,
    requirements::{
        Requirement::{AlignmentChecks, Root},
        missed,
    },
    service::wait_until_freed,
};

pub const TESTS: &[Test] = &[Test {
    name: "faults::killed_in_a_storm_it_leaves_nothing",
    needs: &[Root, AlignmentChecks],
    run: killed_in_a_storm_it_leaves_nothing,
}];

/// More than the test's time allows.
const FOR_EVER: u64 = u64::MAX;

fn killed_in_a_storm_it_leaves_nothing() {
    const TRAPS: u64 = 1000;
    let times = match env::var("SPLITLOCK_KILLS") {
        Ok(number) => number.parse().expect("SPLITLOCK_KILLS is a number"),
        Err(_) => 10,
    };
    let mut storm: Vec<Child> = (0..2)
        .map(|index| {
            let event = Event::AlignmentCheck {
                count: FOR_EVER,
                threads: 1,
            };
            Child::spawn(&event, &format!("kill-storm-{index}"))
        })
        .collect();
    storm.iter_mut().for_each(Child::go);
    let mut programs = BTreeSet::new();
    for round in 0..times {
        let agent = Agent::start(&[]);
        programs.extend(agent.programs());
        // At any point of its work: also at a scrape, or while it names the storm.
        if round % 2 == 0 {
            agent.metrics();
        }
        agent.end(libc::SIGKILL);
    }
    wait_until_freed(&programs);
    let agent = Agent::start(&[]);
    let mut child = Child::spawn(
        &Event::AlignmentCheck {
            count: TRAPS,
            threads: 1,
        },
        "kill-after",
    );
    child.run();
    let metrics = agent.metrics();
    let counted = metrics.count(&checks("kill-after", child.pid()));
    let skipped = missed(&metrics, "signal_generate");
    assert!(counted <= TRAPS && counted + skipped >= TRAPS, "{counted}");
}
