//! tracefs that somebody unmounts while the agent runs.

use std::{ffi::CStr, io, path::Path, ptr, thread, time::Duration};

use super::{
    super::{
        Test,
        agent::Agent,
        events::trap_module::{Mode, set_mode},
        requirements::Requirement::{Kvm, Root, TrapModule},
    },
    work::{Amount, CLASSIC, KPROBES, disturbed},
};

pub const TESTS: &[Test] = &[Test {
    name: "faults_of_the_machine::without_tracefs_counts_go_on_and_a_restart_mounts_its_own",
    needs: &[Root, Kvm, TrapModule],
    run: without_tracefs_counts_go_on_and_a_restart_mounts_its_own,
}];

const PLACE: &CStr = c"/sys/kernel/tracing";
const EVENTS: &str = "/sys/kernel/tracing/events";

/// tracefs is mounted again when this value is dropped.
struct Unmounted;

impl Unmounted {
    #[track_caller]
    fn now() -> Self {
        // Not lazily: an agent that held a file there would be in an operator's way.
        // SAFETY: the place is a C string.
        let status = unsafe { libc::umount2(PLACE.as_ptr(), 0) };
        assert_eq!(status, 0, "umount: {}", io::Error::last_os_error());
        assert!(!Path::new(EVENTS).exists(), "{EVENTS} is there still");
        Self
    }
}

impl Drop for Unmounted {
    fn drop(&mut self) {
        let kind = c"tracefs".as_ptr();
        // SAFETY: C strings, and no data.
        let status = unsafe { libc::mount(kind, PLACE.as_ptr(), kind, 0, ptr::null()) };
        assert_eq!(status, 0, "mount: {}", io::Error::last_os_error());
    }
}

/// Nothing else happens meanwhile.
const MOMENT: Duration = Duration::from_millis(20);
const AMOUNT: Amount = Amount {
    locks: 2000,
    exits: 2000,
};

fn without_tracefs_counts_go_on_and_a_restart_mounts_its_own() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    for args in [&[][..], &KPROBES, &CLASSIC] {
        let agent = Agent::start(args);
        assert!(!mounted_its_own(&agent));
        let hooks = attached(&agent);
        let unmounted = Unmounted::now();
        disturbed(&agent, AMOUNT, |_times| thread::sleep(MOMENT));
        assert_eq!(attached(&agent), hooks);
        let later = Agent::start(args);
        assert!(mounted_its_own(&later), "{:#?}", later.log());
        assert_eq!(attached(&later), hooks, "no rung was lost");
        disturbed(&later, AMOUNT, |_times| thread::sleep(MOMENT));
        assert!(!Path::new(EVENTS).exists(), "it mounted it for others too");
        drop(unmounted);
        disturbed(&agent, AMOUNT, |_times| thread::sleep(MOMENT));
    }
}

fn mounted_its_own(agent: &Agent) -> bool {
    agent.log().iter().any(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("mounted it in a mount namespace of the agent's own")
    })
}

/// Each hook, and its rung. What its counts mean may be learnt later, from the mode.
fn attached(agent: &Agent) -> Vec<(String, String)> {
    let snapshot = agent.snapshot();
    let probes = snapshot["probes"].as_array().expect("a list");
    probes
        .iter()
        .map(|probe| (probe["probe"].to_string(), probe["via"].to_string()))
        .collect()
}
