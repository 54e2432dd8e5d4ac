//! A `/proc` that hides processes from all who may not look at them (hidepid), or does not answer.

use std::{io, os::unix::process::CommandExt as _, process::Command, ptr};

use super::{
    super::{
        Test,
        agent::Agent,
        events::{
            Child, Event,
            trap_module::{Mode, Trap, set_mode},
        },
        requirements::Requirement::{Root, TrapModule},
        traps::{event, series},
    },
    work::assert_locks,
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults_of_the_machine::hidepid_hides_nobody_from_the_agent",
        needs: &[Root, TrapModule],
        run: hidepid_hides_nobody_from_the_agent,
    },
    Test {
        name: "faults_of_the_machine::hidepid_costs_names_and_no_count_without_the_right_to_look",
        needs: &[Root, TrapModule],
        run: hidepid_costs_names_and_no_count_without_the_right_to_look,
    },
    Test {
        name: "faults_of_the_machine::who_does_not_let_proc_answer_is_counted_and_holds_up_nobody",
        needs: &[Root, TrapModule],
        run: who_does_not_let_proc_answer_is_counted_and_holds_up_nobody,
    },
];

const COUNT: u64 = 200;
/// The label of a process whose program is not known.
const NO_EXE: &str = "exe=\"\"";

fn hidepid_hides_nobody_from_the_agent() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = Agent::start_prepared(&[], |command| hide(command, false));
    let child = trapped(&agent, "shown");
    let info = info(&agent, &child).expect("it is known who it is");
    let exe = std::env::current_exe().expect("a test binary knows its path");
    assert!(
        info.contains(&format!(r#"exe="{}""#, exe.display())),
        "{info}"
    );
    assert_eq!(unreadable(&agent), 0);
}

fn hidepid_costs_names_and_no_count_without_the_right_to_look() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = Agent::start_prepared(&[], |command| hide(command, true));
    let child = trapped(&agent, "hidden");
    // The kernel side knows its comm.
    let info = info(&agent, &child).expect("what is known of it is shown");
    assert!(info.contains(NO_EXE), "{info}");
    assert!(unreadable(&agent) >= 1);
    let snapshot = agent.snapshot();
    let own = snapshot["processes"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["pid"] == child.pid()))
        .expect("it is in the snapshot");
    let missing = own["missing"].to_string();
    assert!(missing.contains("exe"), "{own}");
    assert_eq!(agent.get("/healthz"), "ok\n");
}

/// Its command line cannot be read while its address space is locked, which a slow file system brings
/// about.
fn who_does_not_let_proc_answer_is_counted_and_holds_up_nobody() {
    const HELD: u64 = 10;
    let _mode = set_mode(Mode::Warn).expect("the mode is set");
    let agent = Agent::start(&[]);
    let event_held = Event::HeldAddressSpace {
        count: HELD,
        milliseconds: 15_000,
    };
    let mut held = Child::spawn(&event_held, "held");
    let own = series(Trap::UserSplitLock, &held, "held", "warned");
    held.go();
    let overdue = r#"splitlock_lost_total{cause="identity_overdue"}"#;
    let metrics = agent.wait_for("its name", |metrics| metrics.count(&own) > 0);
    assert_eq!(metrics.count(overdue), 1);
    let info = info(&agent, &held).expect("what is known of it is shown");
    assert!(info.contains(NO_EXE), "{info}");
    // Meanwhile others have their names.
    let mut other = Child::spawn(&event(Trap::UserSplitLock, 1, 1), "beside");
    other.run();
    let label = format!(r#"pid="{}""#, other.pid());
    agent.wait_for("the other's name", |metrics| {
        let family = metrics.family("splitlock_process_info");
        family
            .keys()
            .any(|series| series.contains(&label) && !series.contains(NO_EXE))
    });
    assert_eq!(held.results().get("made"), HELD);
    let metrics = agent.metrics();
    assert_eq!(metrics.count(&own), HELD);
    assert_eq!(metrics.count(overdue), 1);
}

/// A process that has trapped, and was counted; it lives.
#[track_caller]
fn trapped(agent: &Agent, comm: &str) -> Child {
    let mut child = Child::spawn(&event(Trap::UserSplitLock, COUNT, 2), comm);
    let own = series(Trap::UserSplitLock, &child, comm, "sigbus");
    assert_eq!(child.run().get("made"), COUNT);
    let metrics = agent.wait_for("its name", |metrics| metrics.get(&own).is_some());
    assert_locks(&metrics, &own, COUNT);
    child
}

/// The series that says who a process is.
fn info(agent: &Agent, child: &Child) -> Option<String> {
    let label = format!(r#"pid="{}""#, child.pid());
    let metrics = agent.metrics();
    let family = metrics.family("splitlock_process_info");
    let series = family.keys().find(|series| series.contains(&label))?;
    Some((*series).to_owned())
}

fn unreadable(agent: &Agent) -> u64 {
    let series = r#"splitlock_lost_total{cause="identity_unreadable"}"#;
    agent.metrics().count(series)
}

/// Has a command see a `/proc` that hides others' processes; `for_real` takes it the right to look at
/// them all the same.
fn hide(command: &mut Command, for_real: bool) {
    let prepare = move || {
        let result = |status: libc::c_int| match status {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        let (none, proc) = (c"none".as_ptr(), c"proc".as_ptr());
        // SAFETY: system calls with constant arguments; strings that end with NUL.
        unsafe {
            result(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            result(libc::mount(
                none,
                c"/".as_ptr(),
                ptr::null(),
                private,
                ptr::null(),
            ))?;
            // Before 5.8 all mounts of a pid namespace had the same options.
            let options = c"hidepid=2".as_ptr().cast();
            result(libc::mount(proc, c"/proc".as_ptr(), proc, 0, options))?;
            if for_real {
                // CAP_SYS_PTRACE, include/uapi/linux/capability.h.
                result(libc::prctl(libc::PR_CAPBSET_DROP, 19, 0, 0, 0))?;
            }
        }
        Ok(())
    };
    // SAFETY: system calls alone, nothing is allocated.
    unsafe { command.pre_exec(prepare) };
}
