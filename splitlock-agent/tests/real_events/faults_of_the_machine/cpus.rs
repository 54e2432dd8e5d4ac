//! CPUs that go and come back.

use std::{fs, path::Path, thread, time::Duration};

use super::{
    super::{
        Test,
        agent::Agent,
        events::{
            Child,
            trap_module::{Mode, Trap, set_mode},
        },
        requirements::Requirement::{Kvm, Root, SecondCpu, TrapModule},
        traps::{event, series},
    },
    work::{Amount, CLASSIC, KPROBES, assert_locks, disturbed},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults_of_the_machine::cpus_go_and_come_under_the_agents_own_choice",
        needs: &[Root, Kvm, TrapModule, SecondCpu],
        run: || cpus_go_and_come(&[]),
    },
    Test {
        name: "faults_of_the_machine::cpus_go_and_come_under_kprobes",
        needs: &[Root, Kvm, TrapModule, SecondCpu],
        run: || cpus_go_and_come(&KPROBES),
    },
    Test {
        name: "faults_of_the_machine::cpus_go_and_come_under_classic_tracepoints",
        needs: &[Root, Kvm, TrapModule, SecondCpu],
        run: || cpus_go_and_come(&CLASSIC),
    },
    Test {
        name: "faults_of_the_machine::a_cpu_that_comes_after_the_start_is_counted_on",
        needs: &[Root, TrapModule, SecondCpu],
        run: a_cpu_that_comes_after_the_start_is_counted_on,
    },
];

const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

/// Whether there is a CPU that can go.
pub fn available() -> Result<(), String> {
    if Path::new(ONLINE).exists() {
        Ok(())
    } else {
        Err(format!("no second CPU that can go: no {ONLINE}"))
    }
}

/// The second CPU, which is there again when this value is dropped.
struct HotCpu;

impl HotCpu {
    #[track_caller]
    fn set(&self, online: bool) {
        fs::write(ONLINE, if online { "1" } else { "0" }).expect("the CPU goes or comes");
    }
}

impl Drop for HotCpu {
    fn drop(&mut self) {
        // It may be there.
        let _ = fs::write(ONLINE, "1");
    }
}

/// Time for a task to be where it is put.
const MOMENT: Duration = Duration::from_millis(50);

fn cpus_go_and_come(args: &[&str]) {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = Agent::start(args);
    let cpu = HotCpu;
    let amount = Amount {
        locks: 20_000,
        exits: 10_000,
    };
    let times = disturbed(&agent, amount, |times| {
        cpu.set(times % 2 == 1);
        thread::sleep(MOMENT);
    });
    eprintln!("the CPU went or came {times} times meanwhile");
    assert!(times >= 4, "only {times} times");
    assert_eq!(agent.get("/healthz"), "ok\n");
}

fn a_cpu_that_comes_after_the_start_is_counted_on() {
    const COUNT: u64 = 500;
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let cpu = HotCpu;
    cpu.set(false);
    for args in [&[][..], &KPROBES, &CLASSIC] {
        let agent = Agent::start(args);
        cpu.set(true);
        let mut child = Child::spawn(&event(Trap::UserSplitLock, COUNT, 1), "second-cpu");
        run_on_second(child.pid());
        let series = series(Trap::UserSplitLock, &child, "second-cpu", "sigbus");
        assert_eq!(child.run().get("made"), COUNT);
        // What the CPU's own memory says must not go with it either.
        cpu.set(false);
        assert_locks(&agent.metrics(), &series, COUNT);
        let snapshot = agent.snapshot();
        let recent = snapshot["recent"].as_array().expect("a list");
        let event = recent
            .iter()
            .find(|event| event["pid"] == child.pid())
            .expect("it has an event");
        assert_eq!(event["cpu"], 1, "{event}");
    }
}

/// Binds a process of one thread to the second CPU.
#[track_caller]
fn run_on_second(pid: u32) {
    // SAFETY: a set of CPUs is an array of integers: all zeros are the empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set has room for CPU 1.
    unsafe { libc::CPU_SET(1, &mut set) };
    // SAFETY: the set is read, with its own size.
    let status =
        unsafe { libc::sched_setaffinity(pid.cast_signed(), size_of_val(&set), &raw const set) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}
