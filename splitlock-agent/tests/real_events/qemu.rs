//! QEMU as the VMM: what the agent shows of its process is what the kernel itself counts.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use splitlock_common::exit_reason::{OTHER, userspace_slot, userspace_slot_name};

use super::{
    Test,
    agent::Agent,
    events::Child,
    exits::{IO, KVM_EXIT, assert_made, assert_same, assert_same_in, reasons},
    kernel_count::{KernelCount, Tracepoint},
    requirements::{
        self,
        Requirement::{ExitCounters, Kvm, Qemu, Root},
    },
};

pub const TESTS: &[Test] = &[Test {
    name: "qemu::its_exits_are_those_that_the_kernel_counts",
    needs: &[Root, Kvm, Qemu, ExitCounters],
    run: its_exits_are_those_that_the_kernel_counts,
}];

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

/// Bytes of a firmware: QEMU wants whole 64 KiB and puts the last byte below 4 GiB.
const SIZE: usize = 0x1_0000;
/// Where the code is in it.
const CODE: usize = 0xff00;
/// Where a vCPU begins.
const RESET: usize = 0xfff0;

/// A firmware that writes to port 0x80 `count` times and halts for ever. 16-bit code.
fn firmware(count: u32) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let [a, b, c, d] = count.to_le_bytes();
    #[rustfmt::skip]
    let code = [
        0x66, 0xb9, a, b, c, d, // mov ecx, count
        0xe6, 0x80,             // again: out 0x80, al
        0x66, 0x49,             // dec ecx
        0x75, 0xfa,             // jnz again
        0xfa,                   // cli
        0xf4,                   // halt: hlt
        0xeb, 0xfd,             // jmp halt
    ];
    bytes[CODE..CODE + code.len()].copy_from_slice(&code);
    // jmp to the code, from behind these three bytes.
    let [low, high] = (CODE.wrapping_sub(RESET + 3) as u16).to_le_bytes();
    bytes[RESET..RESET + 3].copy_from_slice(&[0xe9, low, high]);
    bytes
}

/// A file that goes with this value.
struct Temporary(PathBuf);

impl Temporary {
    fn write(name: &str, bytes: &[u8]) -> Self {
        let path = env::temp_dir().join(format!("{name}-{}", process::id()));
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Not a panic: another one may be under way.
        let _ = fs::remove_file(&self.0);
    }
}

/// QEMU with nothing but a vCPU and this firmware; it begins when it is let go.
fn machine(qemu: &Path, firmware: &Path) -> Child {
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
        "-name",
        "guest=splitlock-nested",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-bios",
    ]
    .map(OsStr::new)
    .to_vec();
    args.push(firmware.as_os_str());
    Child::spawn_program(qemu, &args, &[("LD_LIBRARY_PATH", libraries.as_os_str())])
}

fn its_exits_are_those_that_the_kernel_counts() {
    let qemu = requirements::qemu().expect("the test needs it");
    let agent = Agent::start(&[]);
    for count in [1, 2000] {
        let firmware = Temporary::write("firmware", &firmware(count));
        let mut child = machine(&qemu, &firmware.0);
        let exits = KernelCount::start(&KVM_EXIT, child.pid(), reasons());
        let returns = KernelCount::start(&KVM_USERSPACE_EXIT, child.pid(), returns());
        child.go();
        let start = Instant::now();
        // KVM itself keeps the halted vCPU, as the interrupt controller is its own.
        while !exits.read().contains_key("hlt") {
            assert!(start.elapsed() < DEADLINE, "no halt: {:?}", exits.read());
            thread::sleep(Duration::from_millis(20));
        }
        let metrics = agent.metrics();
        assert_same(&metrics, child.pid(), &exits);
        assert_made(&metrics, child.pid(), &IO, count.into());
        assert_made(&metrics, child.pid(), &["hlt"], 1);
        let family = "splitlock_vm_userspace_exits_total";
        let probe = "kvm_userspace_exit";
        assert_same_in(&metrics, family, probe, child.pid(), &returns);
        assert_eq!(returns.read().get("io"), Some(&count.into()));
    }
}
