//! The command lines of VMMs and of what starts them, each with where it is from.

use super::*;
use crate::subjects::cgroup;

const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

fn naming(exe: &str, line: &str, cgroup: &str) -> VmNaming {
    let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    name_vm(
        exe.as_bytes(),
        &argv,
        b"comm",
        &cgroup::of_path(cgroup.as_bytes()),
    )
}

fn check(exe: &str, line: &str, cgroup: &str, expected: (Vmm, &str, Evidence, Option<&str>)) {
    let found = naming(exe, line, cgroup);
    let (vmm, name, evidence, uuid) = expected;
    let expected = VmNaming {
        name: name.into(),
        uuid: uuid.map(Into::into),
        vmm,
        evidence,
    };
    assert_eq!(found, expected, "{line}");
}

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// libvirt, tests/qemuxmlconfdata/*.args; src/qemu/qemu_command.c `qemuBuildNameCommandLine`.
#[test]
fn libvirt() {
    let scope = "/machine.slice/machine-qemu\\x2d1\\x2dweb1.scope/libvirt/emulator";
    let line = format!(
        "{QEMU} -name guest=web1,debug-threads=on -S -object secret,id=masterKey0 -machine pc \
         -m size=214KiB -uuid {UUID} -display none -no-user-config -nodefaults"
    );
    let expected = (Vmm::Qemu, "web1", Evidence::CommandLine, Some(UUID));
    check(QEMU, &line, scope, expected);
    // Its command line out of reach: the scope's name.
    check(QEMU, "", scope, (Vmm::Qemu, "web1", Evidence::Cgroup, None));
    let line = format!("/usr/libexec/qemu-kvm -name guest=instance-0000002a -uuid {UUID}");
    let expected = (
        Vmm::Qemu,
        "instance-0000002a",
        Evidence::CommandLine,
        Some(UUID),
    );
    check("/usr/libexec/qemu-kvm", &line, "/", expected);
}

/// qemu(1); Debian's `kvm`.
#[test]
fn plain_qemu() {
    let named = |name| (Vmm::Qemu, name, Evidence::CommandLine, None);
    check(
        QEMU,
        "qemu-system-x86_64 -enable-kvm -name web1 disk.img",
        "/",
        named("web1"),
    );
    check(
        "/usr/bin/kvm",
        "kvm --name a,,b,process=x",
        "/",
        named("a,b"),
    );
    check(
        QEMU,
        "qemu-system-x86_64 -m 1G",
        "/",
        (Vmm::Qemu, "comm", Evidence::Comm, None),
    );
}

/// Proxmox VE, PVE::QemuServer `config_to_command`.
#[test]
fn proxmox() {
    let line = format!(
        "/usr/bin/kvm -id 100 -name web1,debug-threads=on -no-shutdown -chardev socket,id=qmp \
         -smbios type=1,uuid={UUID} -smp 4"
    );
    let expected = (Vmm::Qemu, "web1", Evidence::CommandLine, Some(UUID));
    check(QEMU, &line, "/qemu.slice/100.scope", expected);
    check(
        QEMU,
        "",
        "/qemu.slice/100.scope",
        (Vmm::Qemu, "100", Evidence::Cgroup, None),
    );
}

/// KubeVirt, pkg/virt-launcher/virtwrap/api `VMINamespaceKeyFunc`; Kata Containers, virtcontainers
/// qemu.go, fc.go, clh.go.
#[test]
fn in_kubernetes() {
    let pod = "/kubepods.slice/kubepods-pod0b3c1d2e_4f56_4789_8abc_def012345678.slice";
    let line =
        format!("/usr/libexec/qemu-kvm -name guest=tenant-a_web1,debug-threads=on -uuid {UUID}");
    let expected = (
        Vmm::Qemu,
        "tenant-a_web1",
        Evidence::CommandLine,
        Some(UUID),
    );
    check("/usr/libexec/qemu-kvm", &line, pod, expected);
    let id = "4d5b9c2f0e1a3847561029384756abcdefabcdef0123456789abcdef01234567";
    let sandbox = format!("sandbox-{id}");
    let line =
        format!("/opt/kata/bin/qemu-system-x86_64 -name {sandbox},debug-threads=on -uuid {UUID}");
    let expected = (
        Vmm::Qemu,
        sandbox.as_str(),
        Evidence::CommandLine,
        Some(UUID),
    );
    check("/opt/kata/bin/qemu-system-x86_64", &line, pod, expected);
    let line = format!("/opt/kata/bin/cloud-hypervisor --api-socket /run/vc/vm/{id}/clh-api.sock");
    let expected = (Vmm::CloudHypervisor, id, Evidence::Socket, None);
    check("/opt/kata/bin/cloud-hypervisor", &line, pod, expected);
    let line = format!(
        "/firecracker --id={} --config-file fcConfig.json",
        &id[..32]
    );
    let expected = (Vmm::Firecracker, &id[..32], Evidence::CommandLine, None);
    check("/firecracker", &line, pod, expected);
}

/// firecracker, src/firecracker/src/main.rs; docs/jailer.md.
#[test]
fn firecracker() {
    let fc = |line: &str, cgroup: &str, name: &str, evidence| {
        let uuid = (name == UUID).then_some(UUID);
        check(
            "/firecracker",
            line,
            cgroup,
            (Vmm::Firecracker, name, evidence, uuid),
        );
    };
    let jail = format!("/firecracker/{UUID}");
    fc(
        "firecracker --id vm1 --api-sock /run/a.sock",
        "/",
        "vm1",
        Evidence::CommandLine,
    );
    fc(
        &format!("/firecracker --id={UUID} --start-time-us=1 -- x"),
        &jail,
        UUID,
        Evidence::CommandLine,
    );
    fc("firecracker --api-sock a", &jail, UUID, Evidence::Cgroup);
    fc(
        "firecracker --id anonymous-instance",
        "/",
        "comm",
        Evidence::Comm,
    );
    fc(
        "firecracker",
        "/system.slice/firecracker.service",
        "comm",
        Evidence::Comm,
    );
    // Only a name.
    fc(
        "firecracker --id=../../etc",
        "/",
        "../../etc",
        Evidence::CommandLine,
    );
}

/// cloud-hypervisor, docs/api.md, src/main.rs.
#[test]
fn cloud_hypervisor() {
    let exe = "/usr/local/bin/cloud-hypervisor-static";
    let ch = |line: &str, name: &str, evidence, uuid| {
        check(exe, line, "/", (Vmm::CloudHypervisor, name, evidence, uuid));
    };
    ch(
        "ch --api-socket /run/web1.sock",
        "web1",
        Evidence::Socket,
        None,
    );
    ch(
        "ch --api-socket=path=/run/vms/web1/api.sock",
        "web1",
        Evidence::Socket,
        None,
    );
    ch(
        "ch --api-socket path=/tmp/cloud-hypervisor.sock",
        "comm",
        Evidence::Comm,
        None,
    );
    ch("ch --api-socket fd=3", "comm", Evidence::Comm, None);
    let line = format!("ch --platform num_pci_segments=1,uuid={UUID} --api-socket web1");
    ch(&line, "web1", Evidence::Socket, Some(UUID));
}

/// crosvm, src/crosvm/cmdline.rs; kvmtool, builtin-run.c; gVisor, runsc/sandbox/sandbox.go.
#[test]
fn others() {
    let crosvm = |line: &str, name: &str, evidence| {
        check(
            "/usr/bin/crosvm",
            line,
            "/",
            (Vmm::Crosvm, name, evidence, None),
        );
    };
    crosvm(
        "crosvm run --name web1 -s /run/x.sock kernel",
        "web1",
        Evidence::CommandLine,
    );
    crosvm(
        "crosvm run -s /run/vm/web1.sock kernel",
        "web1",
        Evidence::Socket,
    );
    crosvm(
        "crosvm run --socket=/run/web1/crosvm_control.sock k",
        "web1",
        Evidence::Socket,
    );
    crosvm("crosvm run kernel", "comm", Evidence::Comm);
    let lkvm = (Vmm::Kvmtool, "web1", Evidence::CommandLine, None);
    check(
        "/usr/bin/lkvm",
        "lkvm run -k bzImage --name web1",
        "/",
        lkvm,
    );
    let lkvm = (Vmm::Kvmtool, "web1", Evidence::CommandLine, None);
    check("/usr/bin/lkvm-static", "lkvm run -n web1", "/", lkvm);
    let sandbox = (Vmm::Gvisor, "abc", Evidence::CommandLine, None);
    check(
        "/usr/bin/runsc",
        "runsc-sandbox --platform=kvm boot --bundle=/b abc",
        "/",
        sandbox,
    );
    let other = (Vmm::Other, "comm", Evidence::Comm, None);
    check(
        "/usr/bin/my-vmm",
        "qemu-system-x86_64 -name victim",
        "/",
        other,
    );
}

/// The name that a program was called by counts only where its file is not known.
#[test]
fn without_a_file() {
    let qemu = (Vmm::Qemu, "a", Evidence::CommandLine, None);
    check("", "qemu-system-x86_64 -name a", "/", qemu);
    let found = name_vm(b"", &[], b"cloud-hyperviso", &CgroupIdentity::default());
    assert_eq!(
        (found.vmm, found.name.as_str()),
        (Vmm::CloudHypervisor, "cloud-hyperviso")
    );
}

#[test]
fn hostile_names() {
    let huge = "x".repeat(4096);
    assert_eq!(
        naming(QEMU, &format!("qemu -name {huge}"), "/").name.len(),
        NAME_LIMIT
    );
    let argv: [&[u8]; 3] = [b"qemu", b"-name", b"a\nb\"} 1\xff\xe2\x80\xae"];
    let found = name_vm(QEMU.as_bytes(), &argv, b"", &CgroupIdentity::default());
    assert_eq!(found.name, "a\\x0ab\"} 1\\xff\\xe2\\x80\\xae");
}

/// What becomes of any command line, arguments separated by NUL, of any VMM.
fn holds(exe: &[u8], command_line: &[u8], cgroup: &[u8]) {
    let argv: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    let found = name_vm(exe, &argv, b"comm", &cgroup::of_path(cgroup));
    assert!(!found.name.is_empty() && found.name.len() <= NAME_LIMIT);
    assert_eq!(
        found.name,
        crate::subjects::names::printable(found.name.as_bytes())
    );
    if let Some(text) = &found.uuid {
        assert_eq!(uuid::normalise(text.as_bytes()).as_ref(), Some(text));
    }
}

const EXES: [&[u8]; 7] = [
    b"qemu-kvm",
    b"firecracker",
    b"cloud-hypervisor",
    b"crosvm",
    b"lkvm",
    b"runsc",
    b"",
];

#[test]
fn fuzz_command_line() {
    bolero::check!(name = "command_line").for_each(|input: &[u8]| {
        let Some((vmm, line)) = input.split_first() else {
            return;
        };
        let exe = EXES[usize::from(*vmm) % EXES.len()];
        holds(exe, line, line);
    });
}

proptest::proptest! {
    /// Command lines of the words that mean something.
    #[test]
    fn any_command_line(
        exe in proptest::sample::select(EXES.to_vec()),
        words in proptest::collection::vec(proptest::sample::select(vec![
            "-name", "--name", "guest=", "guest=a,,", ",", "-uuid", UUID, "-smbios", "type=1,uuid=",
            "-id", "--id", "--id=", "--", "--api-socket", "path=", "/", "a/.sock", "-n", "-s", "boot",
            "--platform", "uuid=4dea22b3-1d52-d8f3-2516-782e98ab3fa0", "-append", "\u{202e}", "\n",
        ]), 0..10),
    ) {
        holds(exe, format!("vmm\0{}\0", words.join("\0")).as_bytes(), b"/firecracker/\xff");
    }
}
