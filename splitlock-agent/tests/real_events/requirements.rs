//! What a test needs of the machine.

use std::{env, fs, net::ToSocketAddrs as _, path::PathBuf, sync::OnceLock};

use splitlock_agent::selftest::events::kvm_guest;

use super::{
    agent::Metrics,
    cgroup,
    events::{Child, Event, trap_module},
    exits, faults_of_the_machine, pseudo_terminal,
};

/// One need.
#[derive(Clone, Copy)]
pub enum Requirement {
    /// The rights to load BPF programs.
    Root,
    /// `/dev/kvm`.
    Kvm,
    /// `kernel.ns_last_pid`, which chooses the next pid (CONFIG_CHECKPOINT_RESTORE).
    PidChoice,
    /// A v2 hierarchy of cgroups that may be changed.
    Cgroups,
    /// Prometheus and promtool.
    Prometheus,
    /// Terminals without a person (devpts).
    PseudoTerminals,
    /// Chromium, the browser.
    Chromium,
    /// curl, with TLS.
    Curl,
    /// An address of `localhost`, by that name.
    Localhost,
    /// Landlock (5.13+).
    Landlock,
    /// The program openssl.
    Openssl,
    /// A CPU that raises `#AC`; QEMU's emulated ones do not.
    AlignmentChecks,
    /// The rig's module that calls the kernel's split-lock functions.
    TrapModule,
    /// `handle_bus_lock` (5.13+).
    BusLocks,
    /// The ratelimit mode (5.14+).
    Ratelimit,
    /// The penalty of 10 ms (5.19+).
    Penalty,
    /// `kernel.split_lock_mitigate` (6.2+, also in stable 6.0 and 6.1).
    Mitigation,
    /// A kernel that runs raw tracepoints' programs on what they are given.
    ExitRecords,
    /// Statistics of BPF programs by `BPF_ENABLE_STATS` (5.8+).
    BpfStatistics,
    /// The kernel's own counters of `kvm_exit`: perf's, and tracefs with its number.
    ExitCounters,
    /// BTF of KVM's vendor module (modules have BTF from 5.11 on).
    VcpuTypes,
    /// A QEMU that the rig brought.
    Qemu,
    /// A libvirt that the rig brought, with that QEMU.
    Libvirt,
    /// A kernel whose tasks are not preempted inside programs on fentry.
    ExactFentry,
    /// A second CPU, which can go.
    SecondCpu,
    /// A machine that sleeps, and a clock that wakes it.
    Sleep,
    /// The v2 controller of memory.
    MemoryLimits,
    /// Modules of KVM that were loaded, and can be again.
    KvmModules,
}

impl Requirement {
    /// Says what is missing.
    pub fn check(self) -> Result<(), String> {
        match self {
            Self::Root => {
                // SAFETY: the call has no preconditions.
                if unsafe { libc::geteuid() } == 0 {
                    Ok(())
                } else {
                    Err("needs root's rights: cargo xtask test --sudo".to_owned())
                }
            }
            Self::Kvm => kvm_guest::available(),
            Self::PidChoice => match fs::exists("/proc/sys/kernel/ns_last_pid") {
                Ok(true) => Ok(()),
                _ => Err("this kernel lets nobody choose a pid: no kernel.ns_last_pid".to_owned()),
            },
            Self::Cgroups => cgroup::available(),
            Self::Prometheus => {
                if prometheus().is_some() && promtool().is_some() {
                    Ok(())
                } else {
                    Err("needs prometheus and promtool: cargo xtask test brings them".to_owned())
                }
            }
            Self::PseudoTerminals => pseudo_terminal::available(),
            Self::Chromium => match chromium() {
                Some(_) => Ok(()),
                None => Err("needs chromium: cargo xtask test brings it".to_owned()),
            },
            Self::Curl => program("curl", "--version"),
            Self::Openssl => program("openssl", "version"),
            Self::AlignmentChecks => alignment_checks(),
            Self::TrapModule => trap_module::available(),
            Self::BusLocks => trap_module::bus_lock_available(),
            Self::Ratelimit => trap_module::ratelimit_available(),
            Self::Localhost => match ("localhost", 80).to_socket_addrs() {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("localhost: {error}")),
            },
            Self::Landlock => newer_than((5, 13), "no Landlock"),
            Self::BpfStatistics => newer_than((5, 8), "no BPF_ENABLE_STATS"),
            Self::ExitRecords => newer_than((5, 10), "no BPF_PROG_TEST_RUN of raw tracepoints"),
            Self::ExitCounters => exits::KVM_EXIT.check(),
            Self::VcpuTypes => {
                let files = ["kvm_intel", "kvm_amd"].map(|name| format!("/sys/kernel/btf/{name}"));
                if files.iter().any(|file| fs::exists(file).unwrap_or(false)) {
                    Ok(())
                } else {
                    Err(format!("none of {} is there", files.join(" and ")))
                }
            }
            Self::Qemu => match qemu() {
                Some(_) => Ok(()),
                None => Err("this boot brought no QEMU".to_owned()),
            },
            Self::Libvirt => match libvirt() {
                Some(_) => Ok(()),
                None => Err("this boot brought no libvirt".to_owned()),
            },
            Self::ExactFentry => {
                if is_preemptible() {
                    Err(
                        "fentry loses traps on a preemptible kernel; the agent takes kprobes there"
                            .to_owned(),
                    )
                } else {
                    Ok(())
                }
            }
            Self::SecondCpu => faults_of_the_machine::cpus::available(),
            Self::Sleep => faults_of_the_machine::sleep::available(),
            Self::MemoryLimits => faults_of_the_machine::memory::available(),
            Self::KvmModules => faults_of_the_machine::kvm_module::available(),
            Self::Penalty => newer_than((5, 19), "no penalty"),
            Self::Mitigation => match fs::exists("/proc/sys/kernel/split_lock_mitigate") {
                Ok(true) => Ok(()),
                _ => Err("this kernel has no kernel.split_lock_mitigate".to_owned()),
            },
        }
    }
}

/// Tries one.
fn alignment_checks() -> Result<(), String> {
    static TRIED: OnceLock<bool> = OnceLock::new();
    let one = Event::AlignmentCheck {
        count: 1,
        threads: 1,
    };
    let raised = TRIED.get_or_init(|| Child::spawn(&one, "ac-probe").run().get("bus_adraln") == 1);
    if *raised {
        Ok(())
    } else {
        Err("this CPU raises no #AC".to_owned())
    }
}

fn newer_than(version: (u32, u32), what: &str) -> Result<(), String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Err(format!("a kernel without a version: {release}"));
    };
    if (major, minor) >= version {
        Ok(())
    } else {
        let (major, minor) = version;
        Err(format!("{what} before Linux {major}.{minor}"))
    }
}

/// Whether the rig's kernel is preemptible: 7.0 and later are, Debian's earlier ones are voluntary.
pub fn is_preemptible() -> bool {
    newer_than((7, 0), "").is_ok()
}

/// What a hook's counts may lack: what the kernel says that it skipped, while a task that it
/// preempted inside `bpf(2)` waited. Nothing on a kernel that is not preemptible.
pub fn missed(metrics: &Metrics, probe: &str) -> u64 {
    if is_preemptible() {
        metrics.count(&format!(
            r#"splitlock_probe_missed_total{{probe="{probe}"}}"#
        ))
    } else {
        0
    }
}

/// Whether this is a VM of `cargo xtask vm`.
pub fn in_rig() -> bool {
    env::var_os("SPLITLOCK_RIG").is_some()
}

/// Whether this is a VM whose clock, CPUs and modules are a test's to change.
pub fn may_change_the_machine() -> bool {
    modules().is_some()
}

/// The folder of the kernel modules that such a VM was booted with.
pub fn modules() -> Option<PathBuf> {
    env::var_os("SPLITLOCK_CHANGING_MACHINE").map(PathBuf::from)
}

/// Where QEMU is, with its libraries in the folder `lib` beside it.
pub fn qemu() -> Option<PathBuf> {
    env::var_os("SPLITLOCK_QEMU").map(PathBuf::from)
}

/// The folder of libvirt's daemon, its driver and `virsh`.
pub fn libvirt() -> Option<PathBuf> {
    env::var_os("SPLITLOCK_LIBVIRT").map(PathBuf::from)
}

/// Where prometheus is.
pub fn prometheus() -> Option<PathBuf> {
    env::var_os("SPLITLOCK_PROMETHEUS").map(PathBuf::from)
}

/// Where promtool is.
pub fn promtool() -> Option<PathBuf> {
    env::var_os("SPLITLOCK_PROMTOOL").map(PathBuf::from)
}

/// Where chromium is.
pub fn chromium() -> Option<PathBuf> {
    env::var_os("SPLITLOCK_CHROMIUM").map(PathBuf::from)
}

fn program(name: &str, version: &str) -> Result<(), String> {
    let found = std::process::Command::new(name).arg(version).output();
    match found {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!("needs the program {name}")),
    }
}

/// Whether a test that cannot run is a failure.
pub fn must_run() -> bool {
    env::var_os("SPLITLOCK_TESTS_MUST_RUN").is_some()
}
