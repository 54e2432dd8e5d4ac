//! Hooks that are taken off while the agent runs: as they cost too much, or on SIGUSR1. What happens
//! before is counted, what happens after is not, and the agent says so.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Test,
    agent::{Agent, programs_of},
    events::{Child, Event, kvm_guest::Guest},
    requirements::Requirement::{AlignmentChecks, Kvm, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "brake::what_costs_too_much_is_taken_off",
        needs: &[Root, Kvm],
        run: what_costs_too_much_is_taken_off,
    },
    Test {
        name: "brake::sigusr1_takes_all_off",
        needs: &[Root, AlignmentChecks, Kvm],
        run: sigusr1_takes_all_off,
    },
];

/// For windows of 5 s to come to an end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn detached(hook: &str, reason: &str) -> String {
    format!(r#"splitlock_probe_detached{{probe="{hook}",reason="{reason}"}}"#)
}

/// Returns of a VM to its VMM for I/O, as an agent counted them.
fn io(agent: &Agent, pid: u32) -> u64 {
    let snapshot = agent.snapshot();
    let vms = snapshot["vms"].as_array().expect("VMs");
    let vm = vms.iter().find(|vm| vm["pid"] == pid);
    vm.and_then(|vm| vm["userspace_exits"]["io"].as_u64())
        .unwrap_or(0)
}

fn guest(count: u64) -> Event {
    Event::KvmGuest {
        guest: Guest::PortIo,
        count,
        vcpus: 1,
    }
}

/// An agent without a limit sees the same, and lets go of nothing.
fn what_costs_too_much_is_taken_off() {
    const HOOK: &str = "kvm_userspace_exit";
    let free = Agent::start(&[]);
    let (limited, programs, first) = (0..10)
        .find_map(|_| limited(HOOK))
        .expect("others on this host make less than 1,000 exits a second for a moment");
    let start = Instant::now();
    while limited.via(HOOK) != "none" {
        assert!(start.elapsed() < PATIENCE, "{HOOK} is still attached");
        let mut storm = Child::spawn(&guest(20_000), "brake-storm");
        storm.run();
        storm.end();
    }
    let metrics = limited.metrics();
    assert_eq!(metrics.get(&detached(HOOK, "overhead")), Some(1.0));
    let said = limited.log().into_iter().find(|line| {
        line["level"] == "ERROR"
            && line["probe"] == HOOK
            && line["message"].to_string().contains("--max-overhead")
    });
    assert!(said.is_some(), "{:?}", limited.log());
    let row = limited.snapshot()["probes"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["probe"] == HOOK).cloned())
        .expect("a row");
    assert_eq!(
        (&row["via"], &row["detached"], &row["counts"]),
        (&serde_json::Value::Null, &"overhead".into(), &"none".into())
    );
    assert!(
        row["refused"]
            .to_string()
            .contains("--max-overhead allows 0.01 %"),
        "{row}"
    );
    assert!(
        row["runs"]["nanoseconds"].as_u64() > Some(0),
        "what it had cost is still told: {row}"
    );
    assert!(programs_of(limited.pid()).len() < programs);

    // What was counted stays, and nothing more is counted; who has no limit counts on.
    let before = io(&limited, first.pid());
    let mut later = Child::spawn(&guest(700), "brake-after");
    let results = later.run();
    assert_eq!(io(&free, later.pid()), results.get("io"));
    assert_eq!(io(&limited, later.pid()), 0);
    assert_eq!(io(&limited, first.pid()), before);
    assert_ne!(free.via(HOOK), "none");
    assert!(free.metrics().family("splitlock_probe_detached").is_empty());
    drop((first, later));
}

/// An agent with a limit that has counted what a guest did before the hook was taken off; nothing,
/// if others on this host did so much that it was too late.
fn limited(hook: &str) -> Option<(Agent, usize, Child)> {
    // 1,000 exits a second of some 100 ns each.
    let agent = Agent::start(&["--max-overhead", "0.01"]);
    let programs = agent.programs().len();
    let mut first = Child::spawn(&guest(500), "brake-before");
    let made = first.run().get("io");
    let counted = io(&agent, first.pid());
    if agent.via(hook) == "none" {
        return None;
    }
    assert_eq!(counted, made);
    Some((agent, programs, first))
}

fn sigusr1_takes_all_off() {
    let agent = Agent::start(&[]);
    let programs = agent.programs();
    let event = Event::AlignmentCheck {
        count: 100,
        threads: 1,
    };
    let mut child = Child::spawn(&event, "detach-before");
    child.run();
    let series = |comm: &str, pid: u32| {
        format!(r#"splitlock_process_alignment_checks_total{{comm="{comm}",pid="{pid}"}}"#)
    };
    let counted = series("detach-before", child.pid());
    assert_eq!(agent.metrics().count(&counted), 100);
    let attached: Vec<String> = agent
        .metrics()
        .family("splitlock_probe_attached")
        .into_iter()
        .filter(|(_, value)| *value == 1.0)
        .filter_map(|(series, _)| Some(series.split('"').nth(1)?.to_owned()))
        .collect();
    assert!(
        attached.contains(&"signal_generate".to_owned()),
        "{attached:?}"
    );

    for again in [false, true] {
        // SAFETY: the agent is this process's child and was not waited for.
        let sent = unsafe { libc::kill(agent.pid().cast_signed(), libc::SIGUSR1) };
        assert_eq!(sent, 0);
        let metrics = agent.wait_for("the end of all hooks", |metrics| {
            metrics
                .family("splitlock_probe_attached")
                .values()
                .all(|value| *value == 0.0)
        });
        for hook in &attached {
            assert_eq!(
                metrics.get(&detached(hook, "request")),
                Some(1.0),
                "{hook}, {again}"
            );
        }
        assert_eq!(
            metrics.family("splitlock_probe_detached").len(),
            attached.len()
        );
    }
    assert!(programs_of(agent.pid()).is_empty());
    let start = Instant::now();
    while let Some(left) = programs.iter().find(|id| is_loaded(**id)) {
        assert!(
            start.elapsed() < PATIENCE,
            "program {left} is still in the kernel"
        );
        thread::sleep(Duration::from_millis(20));
    }

    let mut later = Child::spawn(&event, "detach-after");
    assert_eq!(later.run().get("bus_adraln"), 100);
    let mut vm = Child::spawn(&guest(50), "detach-vm");
    vm.run();
    let metrics = agent.metrics();
    assert_eq!(metrics.count(&counted), 100);
    assert!(metrics.with_label("comm", "detach-after").is_empty());
    assert_eq!(io(&agent, vm.pid()), 0);
    assert_eq!(
        metrics.family("splitlock_host_sees").values().sum::<f64>(),
        0.0
    );
    let loud: Vec<_> = agent
        .log()
        .into_iter()
        .filter(|line| line["level"] == "ERROR")
        .collect();
    assert_eq!(loud.len(), 1, "{loud:?}");
    assert!(
        loud[0]["message"]
            .to_string()
            .contains("nothing more is counted"),
        "{loud:?}"
    );
    assert_eq!(agent.get("/healthz"), "ok\n");
    drop((child, later, vm));
    let (status, _) = agent.end(libc::SIGTERM);
    assert!(status.success(), "{status}");
}

/// Whether the kernel has a program with this id (`BPF_PROG_GET_FD_BY_ID`, include/uapi/linux/bpf.h).
fn is_loaded(id: u32) -> bool {
    const GET_FD_BY_ID: libc::c_int = 13;
    let attributes = [id, 0, 0];
    // SAFETY: the attributes are the command's: an id, and two numbers that are not used.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            GET_FD_BY_ID,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    unsafe { libc::close(fd as libc::c_int) };
    true
}
