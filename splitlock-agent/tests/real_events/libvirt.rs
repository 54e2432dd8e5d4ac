//! libvirt: a domain is shown by its name and UUID, as `virsh` has them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Test,
    agent::{Agent, Metrics},
    firmware::Firmware,
    requirements::{
        self,
        Requirement::{Kvm, Libvirt, Qemu, Root},
    },
};

pub const TESTS: &[Test] = &[Test {
    name: "libvirt::a_domain_has_its_name_and_goes_on_after_its_end",
    needs: &[Root, Kvm, Qemu, Libvirt],
    run: a_domain_has_its_name_and_goes_on_after_its_end,
}];

/// For libvirt's look at QEMU, which takes a minute where all is emulated.
const DEADLINE: Duration = Duration::from_secs(150);
/// Where the daemon of the system listens.
const SOCKET: &str = "/run/libvirt/libvirt-sock";

/// What each vCPU writes to a port after its start.
const WRITES: u32 = 50;
const VCPUS: u32 = 2;

const NAME: &str = "web \"1\", größe=\\ -uuid";
/// What is left of the name in a cgroup's: `virDomainDriverGenerateMachineName`
/// (src/hypervisor/domain_driver.c, 11.3).
const NAME_IN_CGROUP: &str = "web1gre-uuid";
const UUID: &str = "0f5e9a30-0005-4000-8000-00000000000a";

/// libvirt's daemon, ended with this value.
struct Daemon(Child);

impl Daemon {
    #[track_caller]
    fn start() -> Self {
        let child = command("libvirtd").spawn();
        let daemon = Self(child.expect("libvirt's daemon starts"));
        let start = Instant::now();
        while !Path::new(SOCKET).exists() {
            assert!(start.elapsed() < DEADLINE, "no {SOCKET}");
            thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Domains outlive their daemon.
        let _ = virsh_command(&["destroy", UUID]).output();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of libvirt's programs.
fn command(program: &str) -> Command {
    let folder = requirements::libvirt().expect("the test needs it");
    let qemu = requirements::qemu().expect("the test needs it");
    let mut command = Command::new(folder.join(program));
    command
        // QEMU, which the daemon starts, has it from the daemon.
        .env("LD_LIBRARY_PATH", qemu.with_file_name("lib"))
        .env("LIBVIRT_DRIVER_DIR", folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

fn virsh_command(args: &[&str]) -> Command {
    let mut command = command("virsh");
    command.args(["--connect", "qemu:///system"]).args(args);
    command
}

#[track_caller]
fn virsh(args: &[&str]) {
    let output = virsh_command(args).output().expect("virsh starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "virsh {args:?}: {said}");
}

/// The file of a domain's definition, which goes with this value.
struct Definition(PathBuf);

impl Definition {
    #[track_caller]
    fn write(firmware: &Path) -> Self {
        let qemu = requirements::qemu().expect("the test needs it");
        let (qemu, firmware) = (qemu.display(), firmware.display());
        let xml = format!(
            "<domain type='kvm'>
               <name>{NAME}</name>
               <uuid>{UUID}</uuid>
               <memory unit='MiB'>16</memory>
               <vcpu>{VCPUS}</vcpu>
               <os>
                 <type arch='x86_64' machine='pc'>hvm</type>
                 <loader type='rom'>{firmware}</loader>
               </os>
               <features><acpi/><apic/></features>
               <devices>
                 <emulator>{qemu}</emulator>
                 <controller type='usb' model='none'/>
                 <memballoon model='none'/>
               </devices>
             </domain>"
        );
        let file = firmware.to_string() + ".xml";
        fs::write(&file, xml).unwrap_or_else(|error| panic!("{file}: {error}"));
        Self(file.into())
    }

    #[track_caller]
    fn create(&self) {
        virsh(&["create", &self.0.to_string_lossy()]);
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        // Not a panic: another one may be under way.
        let _ = fs::remove_file(&self.0);
    }
}

fn labels() -> String {
    let name = NAME.replace('\\', r"\\").replace('"', "\\\"");
    format!(r#"vm="{name}",id="{UUID}""#)
}

/// The domain's writes to a port.
fn writes(metrics: &Metrics) -> u64 {
    let family = "splitlock_vm_userspace_exits_total";
    metrics.count(&format!(r#"{family}{{{},reason="io"}}"#, labels()))
}

/// The domain's VM exits, of all reasons.
fn exits(metrics: &Metrics) -> u64 {
    let start = format!("splitlock_vm_exits_total{{{},", labels());
    let family = metrics.family("splitlock_vm_exits_total");
    let own = family
        .iter()
        .filter(|(series, _)| series.starts_with(&start));
    own.map(|(_, count)| *count as u64).sum()
}

/// What joins it with others' metrics: one series, of the domain's process now.
#[track_caller]
fn assert_info(metrics: &Metrics, lives: u64) -> u32 {
    let family = metrics.family("splitlock_vm_info");
    let start = format!(r#"splitlock_vm_info{{{},vmm="qemu",pid=""#, labels());
    let own: Vec<_> = family.keys().filter(|key| key.contains(UUID)).collect();
    let [series] = own[..] else {
        panic!("{own:#?}")
    };
    let rest = series.strip_prefix(&start);
    let rest = rest.unwrap_or_else(|| panic!("{series} is not {start}"));
    let (pid, rest) = rest.split_once('"').expect("the label's end");
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let cgroup = cgroups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .expect("a v2 hierarchy");
    // libvirt puts its threads in cgroups of their own below the machine's.
    let machine = cgroup.strip_suffix("/emulator").unwrap_or(cgroup);
    let name = format!("/machine/qemu-{lives}-{NAME_IN_CGROUP}.libvirt-qemu");
    assert_eq!(machine, name);
    let expected = format!(r#",cgroup="{machine}",container_id="",pod_uid=""}}"#);
    assert_eq!(rest, expected);
    pid.parse().expect("a pid")
}

fn a_domain_has_its_name_and_goes_on_after_its_end() {
    let agent = Agent::start(&[]);
    let firmware = Firmware::write(WRITES);
    let definition = Definition::write(firmware.path());
    let _daemon = Daemon::start();
    let once = u64::from(WRITES * VCPUS);
    let mut pids = vec![];
    for lives in 1..=3 {
        definition.create();
        let made = lives * once;
        let start = Instant::now();
        let metrics = loop {
            let metrics = agent.metrics();
            assert!(writes(&metrics) >= made - once, "it went back");
            let missed =
                metrics.count(r#"splitlock_probe_missed_total{probe="kvm_userspace_exit"}"#);
            if writes(&metrics) + missed >= made {
                break metrics;
            }
            assert!(start.elapsed() < DEADLINE, "{made} of {metrics:#?}");
            thread::sleep(Duration::from_millis(50));
        };
        assert!(writes(&metrics) <= made);
        assert!(exits(&metrics) > 0, "{metrics:#?}");
        pids.push(assert_info(&metrics, lives));
        virsh(&["destroy", NAME]);
        assert_eq!(writes(&agent.metrics()), writes(&metrics), "at its end");
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3, "a process for each life");
}
