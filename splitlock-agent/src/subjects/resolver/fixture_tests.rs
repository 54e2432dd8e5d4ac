//! The resolver on a fixture tree, and on this machine.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::subjects::vmm::{Evidence, Vmm};

const ID: &str = "4d5b9c2f0e1a3847561029384756abcdefabcdef0123456789abcdef01234567";
const UID: &str = "0b3c1d2e-4f56-4789-8abc-def012345678";
const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

/// A `/proc` of a few processes; removed at the end.
struct Fixture(PathBuf);

impl Fixture {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "splitlock-proc-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("proc")).unwrap();
        Self(root)
    }

    fn entry(&self, pid: u32, name: &str) -> PathBuf {
        self.0.join(format!("proc/{pid}/{name}"))
    }

    /// A process that began at tick `pid`, a child of `parent`.
    fn process(&self, pid: u32, parent: u32, comm: &str, exe: &str, line: &[u8], cgroups: &str) {
        fs::create_dir_all(self.entry(pid, "task")).unwrap();
        let stat = format!(
            "{pid} ({comm}) S {parent} 1 1 0 -1 4194304 1 0 0 0 1 1 0 0 20 0 1 0 {pid} 1 1\n"
        );
        for (name, text) in [
            ("stat", stat.as_bytes()),
            ("comm", format!("{comm}\n").as_bytes()),
            ("cmdline", line),
            ("cgroup", cgroups.as_bytes()),
        ] {
            fs::write(self.entry(pid, name), text).unwrap();
        }
        symlink(exe, self.entry(pid, "exe")).unwrap();
    }

    fn paths(&self) -> Paths {
        Paths {
            procfs: self.0.join("proc"),
            sysfs: self.0.join("sys"),
            rootfs: self.0.clone(),
        }
    }

    fn identify(&self, pid: u32, start_ticks: u64) -> Identity {
        let seen = Seen {
            comm: b"seen",
            cgroup_id: 0,
        };
        Resolver::new(self.paths()).identify(SubjectId { pid, start_ticks }, &seen)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn line(text: &str) -> Vec<u8> {
    format!("{} ", text).replace(' ', "\0").into_bytes()
}

fn every(why: Why) -> Vec<Missing> {
    [Fact::Exe, Fact::CommandLine, Fact::Cgroup]
        .into_iter()
        .map(|fact| Missing { fact, why })
        .collect()
}

#[test]
fn a_libvirt_guest_on_v1_and_v2() {
    let fixture = Fixture::new();
    let qemu = "/usr/bin/qemu-system-x86_64";
    let arguments = format!("{qemu} -name guest=web1,debug-threads=on -uuid {UUID}");
    let scope = "/machine.slice/machine-qemu\\x2d1\\x2dweb1.scope";
    let v1 = format!("5:memory:{scope}/libvirt/emulator\n1:name=systemd:{scope}\n");
    let v2 = format!("0::{scope}/libvirt/emulator\n");
    for (pid, cgroups) in [(10, v1), (11, v2)] {
        fixture.process(pid, 1, "qemu-system-x86", qemu, &line(&arguments), &cgroups);
        let found = fixture.identify(pid, pid.into());
        assert_eq!(found.comm, "seen");
        assert_eq!(found.exe.as_deref(), Some(qemu));
        assert_eq!(found.command_line.as_deref(), Some(arguments.as_str()));
        assert_eq!(found.cgroup.unwrap().cgroup, scope);
        assert_eq!(found.vm.name, "web1");
        assert_eq!(found.vm.uuid.as_deref(), Some(UUID));
        assert_eq!(
            (found.vm.vmm, found.vm.evidence),
            (Vmm::Qemu, Evidence::CommandLine)
        );
        assert!(found.missing.is_empty());
    }
}

#[test]
fn a_reused_pid_lends_nothing() {
    let fixture = Fixture::new();
    fixture.process(10, 1, "other", "/bin/other", b"other\0", "0::/a.service\n");
    let found = fixture.identify(10, 9);
    assert_eq!(found.missing, every(Why::Ended));
    assert_eq!(
        (found.exe, found.command_line, found.cgroup),
        (None, None, None)
    );
    assert_eq!(
        (found.vm.name.as_str(), found.vm.evidence),
        ("seen", Evidence::Comm)
    );
    assert_eq!(fixture.identify(11, 9).missing, every(Why::Ended));
}

#[test]
fn entries_that_vanish_or_cannot_be_read() {
    let fixture = Fixture::new();
    fixture.process(10, 1, "a", "/bin/a", b"a\0", "0::/a.service\n");
    for name in ["exe", "cmdline", "cgroup"] {
        fs::remove_file(fixture.entry(10, name)).unwrap();
        // Folders: reading one fails, whoever asks.
        fs::create_dir(fixture.entry(10, name)).unwrap();
    }
    assert_eq!(fixture.identify(10, 10).missing, every(Why::Unreadable));
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let fixture = Fixture::new();
    fixture.process(10, 1, "a", "/bin/a", b"", "0::/a.service\n");
    let entry = fixture.entry(10, "cmdline");
    fs::remove_file(&entry).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &entry,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(fixture.identify(10, 10).command_line.as_deref(), Some(""));
}

#[test]
fn hostile_command_lines() {
    let fixture = Fixture::new();
    let mut huge = line("/usr/bin/qemu-system-x86_64 -name web1");
    huge.extend(vec![b'x'; 6 << 20]);
    fixture.process(10, 1, "a", "/usr/bin/qemu-system-x86_64", &huge, "0::/\n");
    let found = fixture.identify(10, 10);
    assert_eq!(found.command_line.unwrap().len(), COMMAND_LINE_SHOWN);
    assert_eq!(found.vm.name, "web1");
    let odd = b"a\nb\0\"c\xff\0\x1b[2J\0";
    fixture.process(11, 1, "a", "/bin/a (deleted)", odd, "0::/\n");
    let found = fixture.identify(11, 11);
    assert_eq!(found.command_line.unwrap(), "a\\x0ab \"c\\xff \\x1b[2J");
    assert_eq!(found.exe.unwrap(), "/bin/a");
    assert_eq!(found.cgroup.unwrap().cgroup, "/");
}

#[test]
fn the_runtime_is_the_monitors() {
    let fixture = Fixture::new();
    let cgroups = format!("0::/kubepods/burstable/pod{UID}/{ID}\n");
    let shim = |namespace| {
        line(&format!(
            "containerd-shim-runc-v2 -namespace {namespace} -id x"
        ))
    };
    let outside = "0::/system.slice/containerd.service\n";
    fixture.process(10, 1, "containerd-shim", "/shim", &shim("k8s.io"), outside);
    // A process in the container that calls itself a shim.
    fixture.process(11, 10, "containerd-shim", "/shim", &shim("moby"), &cgroups);
    fixture.process(12, 11, "web", "/web", b"web\0", &cgroups);
    let found = fixture.identify(12, 12).cgroup.unwrap();
    assert_eq!(
        found.container.unwrap().label(),
        format!("containerd://{ID}")
    );
    assert_eq!(found.pod_uid.as_deref(), Some(UID));
    // A circle of parents ends.
    fixture.process(20, 21, "a", "/a", b"a\0", &cgroups);
    fixture.process(21, 20, "b", "/b", b"b\0", &cgroups);
    let found = fixture.identify(20, 20).cgroup.unwrap();
    assert_eq!(found.container.unwrap().label(), ID);
}

#[test]
fn an_identity_survives_json() {
    let fixture = Fixture::new();
    fixture.process(10, 1, "a", "/bin/a", b"a\0", &format!("0::/docker/{ID}\n"));
    let found = fixture.identify(10, 10);
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), found);
}

#[test]
fn a_child_of_this_process_alive_and_dead() {
    let paths = Paths::default();
    let mut child = Command::new("cat")
        .arg("--")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its answer tells that it runs: right after a vfork the new arguments are not there yet.
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    let mut answer = [0];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut answer)
        .unwrap();
    let subject = SubjectId {
        pid: child.id(),
        start_ticks: process::start_ticks(&paths, child.id()).unwrap(),
    };
    let resolver = Resolver::new(paths);
    let seen = Seen {
        comm: b"cat",
        cgroup_id: 0,
    };
    let found = resolver.identify(subject, &seen);
    assert_eq!(found.command_line.as_deref(), Some("cat --"));
    assert!(found.missing.is_empty(), "{:?}", found.missing);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(resolver.identify(subject, &seen).missing, every(Why::Ended));
}
