//! The agent as a service: its start and its end, and its answers.

use std::{
    collections::BTreeSet,
    io,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Command, Output, Stdio},
    ptr,
    time::{Duration, Instant},
};

use aya::programs::{ProgramError, ProgramInfo, loaded_programs};

use super::{
    Test,
    agent::{Agent, binary},
    events::{Child, Event},
    requirements::{
        self,
        Requirement::{AlignmentChecks, Root},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "service::a_signal_ends_it_at_once_and_nothing_is_left",
        needs: &[Root],
        run: a_signal_ends_it_at_once_and_nothing_is_left,
    },
    Test {
        name: "service::every_hook_says_how_it_is_attached",
        needs: &[Root],
        run: every_hook_says_how_it_is_attached,
    },
    Test {
        name: "service::answers",
        needs: &[Root],
        run: answers,
    },
    Test {
        name: "service::debug_lines_come_from_the_kernel_side",
        needs: &[Root, AlignmentChecks],
        run: debug_lines_come_from_the_kernel_side,
    },
    Test {
        name: "service::it_mounts_nothing_for_others",
        needs: &[Root],
        run: it_mounts_nothing_for_others,
    },
    Test {
        name: "service::without_tracefs_it_has_fewer_hooks",
        needs: &[Root],
        run: without_tracefs_it_has_fewer_hooks,
    },
    Test {
        name: "service::without_rights_it_says_which",
        needs: &[Root],
        run: without_rights_it_says_which,
    },
    Test {
        name: "service::a_taken_port_is_named",
        needs: &[Root],
        run: a_taken_port_is_named,
    },
    Test {
        name: "service::where_pids_mean_nothing_it_does_not_start",
        needs: &[Root],
        run: where_pids_mean_nothing_it_does_not_start,
    },
    Test {
        name: "service::wrong_flags_are_named",
        needs: &[],
        run: wrong_flags_are_named,
    },
];

fn a_signal_ends_it_at_once_and_nothing_is_left() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let agent = Agent::start(&[]);
        let programs = agent.programs();
        assert!(programs.len() >= 3, "{programs:?}");
        // Connections that stay open must not hold the end up.
        let _idle = TcpStream::connect(agent.address()).expect("the agent listens");
        let (status, time) = agent.end(signal);
        assert!(status.success(), "{status:?}");
        // Each detaching waits for the kernel's readers, and an emulated CPU is slow.
        let limit = if requirements::in_rig() { 5 } else { 1 };
        assert!(time < Duration::from_secs(limit), "{time:?}");
        // The kernel frees programs a moment after their last reference.
        wait_until_freed(&programs);
    }
}

/// Waits until the kernel has freed these programs, which it does in its own time.
#[track_caller]
pub fn wait_until_freed(programs: &BTreeSet<u32>) {
    let start = Instant::now();
    loop {
        let left: Vec<u32> = loaded_programs()
            .filter_map(facts_if_still_there)
            .map(|program| program.id())
            .filter(|id| programs.contains(id))
            .collect();
        if left.is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "left: {left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `None` for a program that was freed after it was listed: other tests' agents, and the rest of the
/// host, end theirs at any time.
fn facts_if_still_there(program: Result<ProgramInfo, ProgramError>) -> Option<ProgramInfo> {
    match program {
        Ok(info) => Some(info),
        Err(ProgramError::SyscallError(error))
            if error.io_error.kind() == io::ErrorKind::NotFound =>
        {
            None
        }
        Err(error) => panic!("a program's facts: {error}"),
    }
}

fn every_hook_says_how_it_is_attached() {
    let agent = Agent::start(&[]);
    let metrics = agent.metrics();
    let probes = metrics.family("splitlock_probe_attached");
    assert_eq!(probes.len(), 9, "{probes:?}");
    for hook in ["signal_generate", "kernel_log"] {
        let start = format!(r#"splitlock_probe_attached{{probe="{hook}","#);
        let found: Vec<_> = probes
            .iter()
            .filter(|(series, _)| series.starts_with(&start))
            .collect();
        assert_eq!(found.len(), 1, "{probes:?}");
        assert_eq!(*found[0].1, 1.0, "{probes:?}");
    }
    // A hook that is not attached says why, in the log.
    for (series, attached) in probes {
        let hook = series.split('"').nth(1).expect("a hook");
        let line = agent
            .log()
            .into_iter()
            .find(|line| line["probe"] == hook)
            .unwrap_or_else(|| panic!("no line on {hook}"));
        if attached == 1.0 {
            assert_eq!(line["message"], "attached");
            assert!(!series.contains(r#"via="none""#), "{series}");
        } else {
            assert_eq!(line["message"], "not attached");
            assert!(!line["reasons"].as_str().expect("a text").is_empty());
            assert!(series.contains(r#"via="none",counts="none""#), "{series}");
        }
    }
}

fn answers() {
    let agent = Agent::start(&["--web.telemetry-path", "/other"]);
    assert_eq!(agent.get("/healthz"), "ok\n");
    assert_eq!(agent.get("/readyz"), "ok\n");
    assert!(agent.get("/other").contains("splitlock_build_info{"));
    assert!(agent.get("/").contains("href=\"/other\""));
    let snapshot = agent.snapshot();
    assert_eq!(snapshot["schema"], 1);
    assert_eq!(snapshot["host_traps"].as_array().map(Vec::len), Some(8));
    assert_eq!(snapshot["probes"].as_array().map(Vec::len), Some(9));
    let missing = ureq::get(format!("http://{}/metrics", agent.address())).call();
    assert!(
        matches!(missing, Err(ureq::Error::StatusCode(404))),
        "{missing:?}"
    );
    let posted = ureq::post(format!("http://{}/other", agent.address())).send("x");
    assert!(
        matches!(posted, Err(ureq::Error::StatusCode(405))),
        "{posted:?}"
    );
}

fn debug_lines_come_from_the_kernel_side() {
    let agent = Agent::start(&["--log.level", "debug"]);
    let event = Event::AlignmentCheck {
        count: 1,
        threads: 1,
    };
    let mut child = Child::spawn(&event, "ac-debug");
    child.run();
    let expected = format!("new subject {}", child.pid());
    let start = Instant::now();
    while !agent
        .log()
        .iter()
        .any(|line| line["message"] == expected.as_str())
    {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:#?}",
            agent.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn it_mounts_nothing_for_others() {
    // What else is mounted meanwhile is other tests' or the host's own.
    let mounts = || {
        let all = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo is there");
        let of_agent = |line: &&str| line.contains(" - tracefs ") || line.contains(" - debugfs ");
        let lines: Vec<String> = all.lines().filter(of_agent).map(str::to_owned).collect();
        lines
    };
    let before = mounts();
    let agent = Agent::start(&[]);
    assert_eq!(mounts(), before);
    let said = agent.log().iter().any(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("mounted it in a mount namespace of the agent's own")
    });
    let own = std::fs::read_link(format!("/proc/{}/ns/mnt", agent.pid())).expect("it runs");
    let ours = std::fs::read_link("/proc/self/ns/mnt").expect("this process runs");
    assert_eq!(said, own != ours, "it says so exactly where it mounts");
    drop(agent);
    assert_eq!(mounts(), before);
}

/// Unmounts tracefs for the calling process alone, and gives up the right to mount it again.
fn leave_tracefs() -> io::Result<()> {
    // SAFETY: system calls with constant arguments; strings that end with NUL.
    unsafe {
        let result = |status: libc::c_int| match status {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        result(libc::unshare(libc::CLONE_NEWNS))?;
        let (none, root) = (c"none".as_ptr(), c"/".as_ptr());
        let private = libc::MS_REC | libc::MS_PRIVATE;
        result(libc::mount(none, root, ptr::null(), private, ptr::null()))?;
        for place in [c"/sys/kernel/tracing", c"/sys/kernel/debug"] {
            // Once for each mount on top of another; an error is the end of them.
            while libc::umount2(place.as_ptr(), libc::MNT_DETACH) == 0 {}
        }
        // CAP_SYS_ADMIN, include/uapi/linux/capability.h.
        result(libc::prctl(libc::PR_CAPBSET_DROP, 21, 0, 0, 0))
    }
}

fn without_tracefs_it_has_fewer_hooks() {
    let agent = Agent::start_prepared(&[], |command| {
        // SAFETY: system calls alone, nothing is allocated.
        unsafe { command.pre_exec(leave_tracefs) };
    });
    let said = agent
        .log()
        .into_iter()
        .find(|line| line["message"] == "going on without tracefs")
        .expect("it says so");
    let reason = said["reason"].as_str().expect("a text");
    assert!(
        reason.contains("mount -t tracefs nodev /sys/kernel/tracing"),
        "{reason}"
    );
    assert_eq!(agent.via("signal_generate"), "raw_tracepoint");
    for probe in agent.snapshot()["probes"].as_array().expect("a list") {
        assert_ne!(probe["via"], "tracepoint", "{probe}");
    }
    if AlignmentChecks.check().is_err() {
        return;
    }
    let event = Event::AlignmentCheck {
        count: 10,
        threads: 1,
    };
    let mut child = Child::spawn(&event, "no-tracefs");
    child.run();
    let series = format!(
        r#"splitlock_process_alignment_checks_total{{comm="no-tracefs",pid="{}"}}"#,
        child.pid()
    );
    assert_eq!(agent.metrics().count(&series), 10);
}

fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn without_rights_it_says_which() {
    // A binary in a folder that is root's alone could not be started by anybody else.
    let copy = std::env::temp_dir().join(format!("splitlock-agent-{}", std::process::id()));
    std::fs::copy(binary(), &copy).expect("a copy of the binary");
    let output = output(Command::new(&copy).arg("run").uid(65534).gid(65534));
    std::fs::remove_file(&copy).expect("the copy goes");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("CAP_BPF") && text.contains("run splitlock-agent as root"),
        "{text}"
    );
    assert!(!text.contains("panicked"), "{text}");
}

fn a_taken_port_is_named() {
    let agent = Agent::start(&[]);
    let address = agent.address().to_string();
    let output = output(Command::new(binary()).args(["run", "--web.listen-address", &address]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("listening on {address}")), "{text}");
    let output = output_of_json(&address);
    let last = output.lines().last().expect("it says why it ends");
    let line: serde_json::Value = serde_json::from_str(last).expect("a JSON line");
    assert_eq!(line["level"], "ERROR", "{last}");
}

fn output_of_json(address: &str) -> String {
    let args = [
        "run",
        "--log.format",
        "json",
        "--web.listen-address",
        address,
    ];
    let output = output(Command::new(binary()).args(args));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// In a pid namespace of its own it would take processes for others, or for gone.
fn where_pids_mean_nothing_it_does_not_start() {
    let missing = output(Command::new(binary()).args(["run", "--path.procfs", "/nonexistent"]));
    let text = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(missing.status.code(), Some(1), "{text}");
    assert!(text.contains("--path.procfs"), "{text}");
    let mut other = Command::new(binary());
    // SAFETY: a system call with a constant argument. Its child is in the new namespace, but not
    // this process, which is what its `/proc` tells.
    unsafe {
        other.arg("run").pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWPID) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::fork() {
                -1 => Err(io::Error::last_os_error()),
                0 => Ok(()),
                child => {
                    let mut status = 0;
                    libc::waitpid(child, &raw mut status, 0);
                    libc::_exit(libc::WEXITSTATUS(status));
                }
            }
        })
    };
    let foreign = output(&mut other);
    let text = String::from_utf8_lossy(&foreign.stderr);
    assert_eq!(foreign.status.code(), Some(1), "{text}");
    assert!(text.contains("pid namespace"), "{text}");
}

fn wrong_flags_are_named() {
    for (flag, value) in [
        ("--web.listen-address", "localhost"),
        ("--web.telemetry-path", "/"),
        ("--log.level", "loud"),
        ("--limit.processes", "-1"),
        ("--limit.vcpus", "0"),
        ("--retention", "soon"),
        ("--probe", "kvm_exit=kprobe"),
    ] {
        let output = output(Command::new(binary()).args(["run", &format!("{flag}={value}")]));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(flag) && text.contains(value), "{text}");
    }
}
