//! Real VMMs: what their users call a VM is what the agent shows.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Test,
    agent::{Agent, Metrics},
    cgroup::Cgroup,
    events::{Child, new_comm},
    exits::IO,
    firmware::Firmware,
    guests::vm_id,
    qemu,
    requirements::{
        self,
        Requirement::{Cgroups, ExitCounters, Kvm, Qemu, Root},
    },
};

pub const TESTS: &[Test] = &[Test {
    name: "vmms::qemu_is_named_by_its_arguments",
    // The counters are not used; they tell that this KVM makes VM exits.
    needs: &[Root, Kvm, Cgroups, Qemu, ExitCounters],
    run: qemu_is_named_by_its_arguments,
}];

const DEADLINE: Duration = Duration::from_secs(60);
/// What each vCPU writes to a port after its start and after each reset.
const WRITES: u32 = 50;
const VCPUS: u32 = 2;
/// A comm that no VMM gives itself.
const COMM: &str = "no longer qemu";

/// How QEMU is started, and what it is to be called.
struct Case {
    options: &'static [&'static str],
    name: &'static str,
    /// `None`: pid and start time.
    uuid: Option<&'static str>,
    /// Whether it has its name from its arguments, which stay.
    told: bool,
}

impl Case {
    /// QEMU names its threads only where it is told to.
    fn vcpu_numbers(&self) -> Vec<Option<u64>> {
        let is_told = self
            .options
            .iter()
            .any(|option| option.ends_with(",debug-threads=on"));
        (0..u64::from(VCPUS))
            .map(|number| is_told.then_some(number))
            .collect()
    }
}

const CASES: [Case; 8] = [
    Case {
        options: &[],
        name: "qemu-system-x86",
        uuid: None,
        told: false,
    },
    Case {
        options: &["-name", "process=vm 7"],
        name: "vm 7",
        uuid: None,
        told: false,
    },
    Case {
        options: &["-name", "plain"],
        name: "plain",
        uuid: None,
        told: true,
    },
    Case {
        options: &["-name", "guest=threads,debug-threads=on"],
        name: "threads",
        uuid: None,
        told: true,
    },
    Case {
        options: &["-uuid", "0f5e9a30-0001-4000-8000-00000000000a"],
        name: "qemu-system-x86",
        uuid: Some("0f5e9a30-0001-4000-8000-00000000000a"),
        told: false,
    },
    Case {
        options: &[
            "-name",
            "first",
            "-uuid",
            "0F5E9A30-0002-4000-8000-00000000000A",
            "--name",
            "comma,,and \"quotes\" \\ größe,process=other",
        ],
        name: "comma,and \"quotes\" \\ größe",
        uuid: Some("0f5e9a30-0002-4000-8000-00000000000a"),
        told: true,
    },
    // As Proxmox VE starts it, but for -id: only its own QEMU has that.
    Case {
        options: &[
            "-name",
            "pve,debug-threads=on",
            "-no-shutdown",
            "-smbios",
            "type=1,uuid=0f5e9a30-0003-4000-8000-00000000000a",
        ],
        name: "pve",
        uuid: Some("0f5e9a30-0003-4000-8000-00000000000a"),
        told: true,
    },
    // What libvirt gives, with a name that is an option.
    Case {
        options: &[
            "-name",
            "guest=-uuid,debug-threads=on",
            "-uuid",
            "0f5e9a30-0004-4000-8000-00000000000a",
        ],
        name: "-uuid",
        uuid: Some("0f5e9a30-0004-4000-8000-00000000000a"),
        told: true,
    },
];

/// A QEMU that runs.
struct Vm {
    case: &'static Case,
    child: Child,
    /// UUID, or pid and start time.
    id: String,
    monitor: PathBuf,
    cgroup: String,
    /// Dropped after the child.
    _cgroup: Cgroup,
}

impl Vm {
    fn start(case: &'static Case, number: usize, firmware: &Firmware) -> Self {
        let qemu = requirements::qemu().expect("the test needs it");
        let monitor = env::temp_dir().join(format!("monitor-{number}-{}", process::id()));
        let socket = format!("unix:{},server=on,wait=off", monitor.display());
        let mut options: Vec<&OsStr> = case.options.iter().map(OsStr::new).collect();
        options.extend(["-monitor", &socket].map(OsStr::new));
        let mut child = qemu::machine(&qemu, firmware.path(), VCPUS, &options);
        let path = format!("/splitlock-vmms/{number}");
        let cgroup = Cgroup::make(&path);
        cgroup.add(child.pid());
        let id = case
            .uuid
            .map_or_else(|| vm_id(child.pid()), ToOwned::to_owned);
        child.go();
        Self {
            case,
            child,
            id,
            monitor,
            cgroup: path,
            _cgroup: cgroup,
        }
    }

    /// The labels that all of its series begin with.
    fn labels(&self) -> String {
        let name = self.case.name.replace('\\', r"\\").replace('"', "\\\"");
        format!(r#"vm="{name}",id="{}""#, self.id)
    }

    /// What joins it with others' metrics.
    fn info(&self) -> String {
        format!(
            r#"splitlock_vm_info{{{},vmm="qemu",pid="{}",cgroup="{}",container_id="",pod_uid=""}}"#,
            self.labels(),
            self.child.pid(),
            self.cgroup
        )
    }

    /// The writes that the agent has seen.
    fn writes(&self, metrics: &Metrics) -> u64 {
        metrics.count(&format!(
            r#"splitlock_vm_userspace_exits_total{{{},reason="io"}}"#,
            self.labels()
        ))
    }

    /// Gives its process another comm.
    fn rename(&self, comm: &str) {
        let pid = self.child.pid();
        new_comm::set(pid, comm).unwrap_or_else(|error| panic!("{}: {error}", self.info()));
        let file = format!("/proc/{pid}/comm");
        let now = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(now.trim_end(), comm);
    }

    /// Starts its guest anew, in the same process.
    fn reset(&self) {
        self.tell_monitor("system_reset\n")
            .unwrap_or_else(|error| panic!("{}: {error}", self.monitor.display()));
    }

    fn tell_monitor(&self, command: &str) -> io::Result<()> {
        let mut monitor = UnixStream::connect(&self.monitor)?;
        monitor.set_read_timeout(Some(DEADLINE))?;
        // It asks before each command, and again when one is done.
        for text in [command, ""] {
            read_to_prompt(&mut monitor)?;
            monitor.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Not a panic: another one may be under way.
        let _ = fs::remove_file(&self.monitor);
    }
}

fn read_to_prompt(monitor: &mut UnixStream) -> io::Result<()> {
    let mut said = Vec::new();
    while !said.ends_with(b"(qemu) ") {
        let mut byte = [0];
        monitor.read_exact(&mut byte)?;
        said.extend(byte);
    }
    Ok(())
}

fn qemu_is_named_by_its_arguments() {
    let firmware = Firmware::write(WRITES);
    let agent = Agent::start(&[]);
    let vms: Vec<Vm> = CASES
        .iter()
        .enumerate()
        .map(|(number, case)| Vm::start(case, number, &firmware))
        .collect();
    assert_shown(&agent, &vms, 1);
    // More exits after a change of comm come to the same series.
    for vm in &vms {
        vm.rename(COMM);
        vm.reset();
    }
    assert_shown(&agent, &vms, 2);
    // A name that is only a comm cannot outlive the comm and the agent both.
    for vm in vms.iter().filter(|vm| !vm.case.told) {
        vm.rename(vm.case.name);
    }
    drop(agent);
    let agent = Agent::start(&[]);
    agent.wait_for("the names of VMs that stand still", |metrics| {
        vms.iter().all(|vm| metrics.get(&vm.info()) == Some(1.0))
    });
    vms.iter().for_each(Vm::reset);
    assert_shown(&agent, &vms, 1);
}

/// Waits until each VM's guest has run that often, and looks at its series.
#[track_caller]
fn assert_shown(agent: &Agent, vms: &[Vm], runs: u64) {
    let made = runs * u64::from(WRITES * VCPUS);
    // What a preemptible kernel skips, it may skip of any one.
    let missed = |metrics: &Metrics| -> u64 {
        let skipped = metrics.family("splitlock_probe_missed_total");
        skipped.values().map(|count| *count as u64).sum()
    };
    let start = Instant::now();
    let metrics = loop {
        let metrics = agent.metrics();
        let allowed = missed(&metrics);
        let waiting: Vec<String> = vms
            .iter()
            .filter(|vm| vm.writes(&metrics) + allowed < made || metrics.get(&vm.info()).is_none())
            .map(Vm::info)
            .collect();
        if waiting.is_empty() {
            break metrics;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "{made} writes of {waiting:#?} did not come: {metrics:#?}"
        );
        thread::sleep(Duration::from_millis(50));
    };
    let snapshot = agent.snapshot();
    let rows = snapshot["vms"].as_array().expect("vms is a list");
    for vm in vms {
        let pid = vm.child.pid();
        assert!(vm.writes(&metrics) <= made, "{}", vm.info());
        assert_exits(&metrics, vm, made, missed(&metrics));
        let series = metrics.with_label("id", &vm.id);
        let stranger = series.keys().find(|series| !series.contains(&vm.labels()));
        assert_eq!(stranger, None, "{series:#?}");
        let rows: Vec<_> = rows.iter().filter(|row| row["pid"] == pid).collect();
        assert_eq!(rows.len(), 1, "{rows:#?}");
        assert_eq!(rows[0]["vcpus"], VCPUS, "{rows:#?}");
        assert_eq!(numbers(rows[0]), vm.case.vcpu_numbers(), "{rows:#?}");
        let evidence = if vm.case.told { "command_line" } else { "comm" };
        assert_eq!(rows[0]["named_by"], evidence, "{rows:#?}");
    }
}

/// The numbers of its vCPUs, as far as they are known, in order.
fn numbers(row: &Value) -> Vec<Option<u64>> {
    let threads = row["vcpu_threads"].as_object();
    let threads = threads.expect("threads by their ids");
    let mut numbers: Vec<_> = threads.values().map(Value::as_u64).collect();
    numbers.sort_unstable();
    numbers
}

/// The VM exits for the writes, by either vendor's name.
#[track_caller]
fn assert_exits(metrics: &Metrics, vm: &Vm, made: u64, missed: u64) {
    let shown: u64 = IO
        .iter()
        .map(|reason| {
            metrics.count(&format!(
                r#"splitlock_vm_exits_total{{{},reason="{reason}"}}"#,
                vm.labels()
            ))
        })
        .sum();
    assert!(
        shown <= made && made <= shown + missed,
        "{shown} of {made}, {missed} missed: {}",
        vm.info()
    );
}
