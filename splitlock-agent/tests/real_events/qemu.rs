//! QEMU as the VMM: what the agent shows of its process is what the kernel itself counts.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use splitlock_common::exit_reason::{OTHER, userspace_slot, userspace_slot_name};

use super::{
    Test,
    agent::{Agent, Metrics},
    events::Child,
    exits::{IO, KVM_EXIT, assert_made, assert_same, assert_same_in, reasons},
    firmware::Firmware,
    kernel_count::{KernelCount, Tracepoint},
    requirements::{
        self,
        Requirement::{ExitCounters, Kvm, Qemu, Root},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "qemu::its_exits_are_those_that_the_kernel_counts",
        needs: &[Root, Kvm, Qemu, ExitCounters],
        run: its_exits_are_those_that_the_kernel_counts,
    },
    Test {
        name: "qemu::a_real_firmwares_exits_are_those_that_the_kernel_counts",
        needs: &[Root, Kvm, Qemu, ExitCounters],
        run: a_real_firmwares_exits_are_those_that_the_kernel_counts,
    },
];

/// For a guest that runs a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

const KVM_USERSPACE_EXIT: Tracepoint = Tracepoint("kvm_userspace_exit");

/// Filters for all returns to the VMM that have a name.
fn returns() -> impl Iterator<Item = (String, &'static str)> {
    let without_error = (0..64)
        .map(|reason| (reason, userspace_slot_name(userspace_slot(reason, 0))))
        .filter(|(_, name)| *name != OTHER)
        .map(|(reason, name)| (format!("reason == {reason} && errno >= 0"), name));
    without_error.chain([
        (format!("errno == -{}", libc::EINTR), "restart"),
        (format!("errno < 0 && errno != -{}", libc::EINTR), "error"),
    ])
}

/// QEMU with nothing but vCPUs, this firmware and these options; it begins when it is let go.
pub fn machine(qemu: &Path, firmware: &Path, vcpus: u32, options: &[&OsStr]) -> Child {
    let vcpus = vcpus.to_string();
    let libraries = qemu.with_file_name("lib");
    let mut args: Vec<&OsStr> = [
        "-machine",
        "pc",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "16M",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-bios",
    ]
    .map(OsStr::new)
    .to_vec();
    args.push(firmware.as_os_str());
    args.extend(["-smp", &vcpus].map(OsStr::new));
    args.extend(options);
    Child::spawn_program(qemu, &args, &[("LD_LIBRARY_PATH", libraries.as_os_str())])
}

/// The kernel's counters of a VMM that has not begun.
struct Kernel {
    exits: KernelCount,
    returns: KernelCount,
}

impl Kernel {
    fn start(pid: u32) -> Self {
        Self {
            exits: KernelCount::start(&KVM_EXIT, pid, reasons()),
            returns: KernelCount::start(&KVM_USERSPACE_EXIT, pid, returns()),
        }
    }

    /// Waits until the guest has done something.
    #[track_caller]
    fn wait_for(&self, what: &str, done: impl Fn(&BTreeMap<&str, u64>) -> bool) {
        let start = Instant::now();
        loop {
            let exits = self.exits.read();
            if done(&exits) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "no {what}: {exits:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn assert_same(&self, metrics: &Metrics, pid: u32) {
        assert_same(metrics, pid, &self.exits);
        let family = "splitlock_vm_userspace_exits_total";
        assert_same_in(metrics, family, "kvm_userspace_exit", pid, &self.returns);
    }
}

fn its_exits_are_those_that_the_kernel_counts() {
    let qemu = requirements::qemu().expect("the test needs it");
    let agent = Agent::start(&[]);
    for count in [1, 2000] {
        let firmware = Firmware::write(count);
        let mut child = machine(&qemu, firmware.path(), 1, &[]);
        let kernel = Kernel::start(child.pid());
        child.go();
        // KVM itself keeps the halted vCPU, as the interrupt controller is its own.
        kernel.wait_for("halt", |exits| exits.contains_key("hlt"));
        let metrics = agent.metrics();
        kernel.assert_same(&metrics, child.pid());
        assert_made(&metrics, child.pid(), &IO, count.into());
        assert_made(&metrics, child.pid(), &["hlt"], 1);
        assert_eq!(kernel.returns.read().get("io"), Some(&count.into()));
    }
}

/// SeaBIOS, which finds two vCPUs and nothing to boot, and waits. What it does is its own affair;
/// agent and kernel are asked while the VMM is stopped.
fn a_real_firmwares_exits_are_those_that_the_kernel_counts() {
    let qemu = requirements::qemu().expect("the test needs it");
    let agent = Agent::start(&[]);
    let mut child = machine(&qemu, &qemu.with_file_name("bios-256k.bin"), 2, &[]);
    let kernel = Kernel::start(child.pid());
    child.go();
    // It halts between two looks at the clock when all else is done.
    kernel.wait_for("halt", |exits| exits.get("hlt") > Some(&10));
    child.stop();
    let metrics = agent.metrics();
    kernel.assert_same(&metrics, child.pid());
    let exits = kernel.exits.read();
    assert!(exits.len() > 5, "{exits:?}");
}
