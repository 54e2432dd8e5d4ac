//! The cgroup layouts of service managers, runtimes and orchestrators, each with where it is from.

use proptest::prelude::*;

use super::*;

const ID: &str = "4d5b9c2f0e1a3847561029384756abcdefabcdef0123456789abcdef01234567";
const INNER: &str = "99999999999999999999999999999999999999999999999999999999abcdef01";
const UID: &str = "0b3c1d2e-4f56-4789-8abc-def012345678";
const STATIC_UID: &str = "d8b3c1a2e4f5678901234567890abcde";

/// A layout and what it means.
#[derive(Default)]
struct Layout {
    path: String,
    /// What `path` is cut to, if it is.
    cgroup: Option<String>,
    unit: Option<String>,
    /// `container_id` label.
    container: Option<String>,
    pod_uid: Option<&'static str>,
}

fn check(layout: Layout) {
    let found = of_path(layout.path.as_bytes());
    let expected = layout.cgroup.unwrap_or(layout.path.clone());
    assert_eq!(found.cgroup, expected, "{}", layout.path);
    assert_eq!(found.unit, layout.unit, "{}", layout.path);
    let label = found.container.as_ref().map(Container::label);
    assert_eq!(label, layout.container, "{}", layout.path);
    assert_eq!(found.pod_uid.as_deref(), layout.pod_uid, "{}", layout.path);
}

fn some(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

/// moby, daemon/oci_linux.go `withCgroups`: `system.slice:docker:ID`, or `/docker/ID`.
#[test]
fn docker() {
    check(Layout {
        path: format!("/system.slice/docker-{ID}.scope"),
        unit: some(format!("docker-{ID}.scope")),
        container: some(format!("docker://{ID}")),
        ..Layout::default()
    });
    check(Layout {
        path: format!("/docker/{ID}"),
        container: some(format!("docker://{ID}")),
        ..Layout::default()
    });
    // Another parent, chosen with --cgroup-parent.
    check(Layout {
        path: format!("/tenants/{ID}"),
        container: some(ID),
        ..Layout::default()
    });
    // systemd inside the container.
    check(Layout {
        path: format!("/system.slice/docker-{ID}.scope/system.slice/ssh.service"),
        cgroup: some(format!("/system.slice/docker-{ID}.scope")),
        unit: some(format!("docker-{ID}.scope")),
        container: some(format!("docker://{ID}")),
        ..Layout::default()
    });
    // Rootless: below a user's manager, where anybody could be blamed, it is but the user's unit.
    let user = "/user.slice/user-1000.slice/user@1000.service";
    check(Layout {
        path: format!("{user}/user.slice/docker-{ID}.scope"),
        unit: some(format!("user@1000.service/docker-{ID}.scope")),
        ..Layout::default()
    });
}

/// Kubernetes: kubelet, pkg/kubelet/cm; containerd, internal/cri `getCgroupsPath`; CRI-O,
/// internal/config/cgmgr.
#[test]
fn kubernetes_with_systemd() {
    let pod = "kubepods-burstable-pod0b3c1d2e_4f56_4789_8abc_def012345678.slice";
    let slice = format!("/kubepods.slice/kubepods-burstable.slice/{pod}");
    for (prefix, scheme) in [
        ("cri-containerd", "containerd"),
        ("crio", "cri-o"),
        ("docker", "docker"),
    ] {
        check(Layout {
            path: format!("{slice}/{prefix}-{ID}.scope"),
            unit: some(format!("{prefix}-{ID}.scope")),
            container: some(format!("{scheme}://{ID}")),
            pod_uid: Some(UID),
            ..Layout::default()
        });
    }
    // Guaranteed pods have no class; CRI-O has a cgroup of its own in the scope.
    check(Layout {
        path: format!("/kubepods.slice/kubepods-pod{STATIC_UID}.slice/crio-{ID}.scope/container"),
        cgroup: some(format!(
            "/kubepods.slice/kubepods-pod{STATIC_UID}.slice/crio-{ID}.scope"
        )),
        unit: some(format!("crio-{ID}.scope")),
        container: some(format!("cri-o://{ID}")),
        pod_uid: Some(STATIC_UID),
    });
    // The monitor belongs to the pod, but to no container.
    check(Layout {
        path: format!("{slice}/crio-conmon-{ID}.scope"),
        unit: some(format!("crio-conmon-{ID}.scope")),
        pod_uid: Some(UID),
        ..Layout::default()
    });
    // A systemd path given to runc with the cgroupfs driver.
    check(Layout {
        path: format!("/system.slice/containerd.service/{pod}:cri-containerd:{ID}"),
        unit: some("containerd.service"),
        container: some(format!("containerd://{ID}")),
        pod_uid: Some(UID),
        ..Layout::default()
    });
    // What runs inside a pod cannot pass for another pod.
    check(Layout {
        path: format!("{slice}/cri-containerd-{ID}.scope/kubepods/pod{STATIC_UID}/{INNER}"),
        cgroup: some(format!("{slice}/cri-containerd-{ID}.scope")),
        unit: some(format!("cri-containerd-{ID}.scope")),
        container: some(format!("containerd://{ID}")),
        pod_uid: Some(UID),
    });
}

/// The same with the kubelet's cgroupfs driver.
#[test]
fn kubernetes_with_cgroupfs() {
    for class in ["/burstable", "/besteffort", ""] {
        check(Layout {
            path: format!("/kubepods{class}/pod{UID}/{ID}"),
            container: some(ID),
            pod_uid: Some(UID),
            ..Layout::default()
        });
    }
    check(Layout {
        path: format!("/kubepods/burstable/pod{UID}/crio-{ID}"),
        container: some(format!("cri-o://{ID}")),
        pod_uid: Some(UID),
        ..Layout::default()
    });
    // Kata Containers with sandbox_cgroup_only (virtcontainers, sandbox.go).
    check(Layout {
        path: format!("/kubepods/besteffort/pod{UID}/kata_{ID}"),
        container: some(ID),
        pod_uid: Some(UID),
        ..Layout::default()
    });
}

/// kind: a node is a container of Docker, and its kubelet has a root cgroup of its own
/// (kind, pkg/cluster/internal/kubeadm: `cgroupRoot: /kubelet`).
#[test]
fn a_kubernetes_node_in_a_container() {
    let node = format!("/system.slice/docker-{ID}.scope/kubelet.slice/kubelet-kubepods.slice");
    let pod = "kubelet-kubepods-besteffort-pod0b3c1d2e_4f56_4789_8abc_def012345678.slice";
    let container =
        format!("{node}/kubelet-kubepods-besteffort.slice/{pod}/cri-containerd-{INNER}.scope");
    check(Layout {
        path: format!("{container}/x"),
        cgroup: some(container),
        unit: some(format!("docker-{ID}.scope")),
        container: some(format!("containerd://{INNER}")),
        pod_uid: Some(UID),
    });
    check(Layout {
        path: format!("/docker/{ID}/kubelet/kubepods/besteffort/pod{UID}/{INNER}"),
        container: some(INNER),
        pod_uid: Some(UID),
        ..Layout::default()
    });
    // Another container in a container is not told apart.
    check(Layout {
        path: format!("/docker/{ID}/docker/{INNER}"),
        cgroup: some(format!("/docker/{ID}")),
        container: some(format!("docker://{ID}")),
        ..Layout::default()
    });
}

/// podman: libpod/container_internal_linux.go `getOCICgroupPath`; `--cgroups=split`: podman-run(1).
#[test]
fn podman() {
    check(Layout {
        path: format!("/machine.slice/libpod-{ID}.scope/container"),
        cgroup: some(format!("/machine.slice/libpod-{ID}.scope")),
        unit: some(format!("libpod-{ID}.scope")),
        container: some(format!("podman://{ID}")),
        ..Layout::default()
    });
    // Rootless, as above.
    let user = "/user.slice/user-1000.slice/user@1000.service/user.slice";
    check(Layout {
        path: format!("{user}/libpod-{ID}.scope/container"),
        unit: some(format!("user@1000.service/libpod-{ID}.scope")),
        ..Layout::default()
    });
    check(Layout {
        path: format!("/libpod_parent/libpod-{ID}"),
        container: some(format!("podman://{ID}")),
        ..Layout::default()
    });
    check(Layout {
        path: format!("/machine.slice/libpod-conmon-{ID}.scope"),
        unit: some(format!("libpod-conmon-{ID}.scope")),
        ..Layout::default()
    });
    check(Layout {
        path: format!("/system.slice/web.service/libpod-payload-{ID}"),
        unit: some("web.service"),
        container: some(format!("podman://{ID}")),
        ..Layout::default()
    });
}

/// lxc, src/lxc/cgroups/cgfsng.c: `lxc.payload.NAME` (4.0.3+), `lxc.payload/NAME`, `lxc/NAME`, as
/// Proxmox sets it with `lxc.cgroup.dir`.
#[test]
fn lxc() {
    for (own, name) in [
        ("/lxc.payload.web1", "web1"),
        ("/lxc.payload/web1", "web1"),
        ("/lxc/101", "101"),
    ] {
        check(Layout {
            path: format!("{own}/ns/init.scope"),
            cgroup: some(own),
            container: some(format!("lxc://{name}")),
            ..Layout::default()
        });
    }
    check(Layout {
        path: "/lxc.monitor.web1".into(),
        ..Layout::default()
    });
    // Docker inside is the container's own affair.
    check(Layout {
        path: format!("/lxc.payload.web1/system.slice/docker-{ID}.scope"),
        cgroup: some("/lxc.payload.web1"),
        container: some("lxc://web1"),
        ..Layout::default()
    });
}

/// systemd: units/systemd-nspawn@.service.in, src/nspawn/nspawn-register.c.
#[test]
fn machines_of_systemd() {
    check(Layout {
        path: "/machine.slice/systemd-nspawn@my\\x2dbox.service/payload/init.scope".into(),
        cgroup: some("/machine.slice/systemd-nspawn@my\\x2dbox.service"),
        unit: some("systemd-nspawn@my\\x2dbox.service"),
        container: some("nspawn://my-box"),
        ..Layout::default()
    });
    check(Layout {
        path: "/machine.slice/machine-box.scope/payload".into(),
        cgroup: some("/machine.slice/machine-box.scope"),
        unit: some("machine-box.scope"),
        container: some("box"),
        ..Layout::default()
    });
}

/// libvirt, src/util/virsystemd.c `virSystemdMakeScopeName`, src/util/vircgroup.c
/// `virCgroupNewMachine…`, src/hypervisor/domain_cgroup.c (`libvirt/emulator`, `libvirt/vcpu0`).
#[test]
fn libvirt() {
    let scope = "machine-qemu\\x2d1\\x2dweb1.scope";
    for inside in ["", "/libvirt/emulator", "/libvirt/vcpu0", "/emulator"] {
        check(Layout {
            path: format!("/machine.slice/{scope}{inside}"),
            cgroup: some(format!("/machine.slice/{scope}")),
            unit: some(scope),
            ..Layout::default()
        });
    }
    check(Layout {
        path: "/machine/qemu-1-web1.libvirt-qemu/vcpu0".into(),
        cgroup: some("/machine/qemu-1-web1.libvirt-qemu"),
        ..Layout::default()
    });
    check(Layout {
        path: "/machine.slice/machine-lxc\\x2d7\\x2dweb1.scope/libvirt".into(),
        cgroup: some("/machine.slice/machine-lxc\\x2d7\\x2dweb1.scope"),
        unit: some("machine-lxc\\x2d7\\x2dweb1.scope"),
        container: some("lxc://web1"),
        ..Layout::default()
    });
}

/// Amazon ECS agent, agent/api/task/task_linux.go; containerd, cmd/ctr and pkg/oci `WithCgroup`;
/// Proxmox, PVE::QemuServer; firecracker, src/jailer/src/cgroup.rs.
#[test]
fn others() {
    let task = "0123456789abcdef0123456789abcdef";
    check(Layout {
        path: format!("/ecs/{task}/{ID}"),
        container: some(format!("docker://{ID}")),
        ..Layout::default()
    });
    check(Layout {
        path: format!("/ecs/{task}/{task}-4011725042"),
        container: some(format!("{task}-4011725042")),
        ..Layout::default()
    });
    check(Layout {
        path: format!("/ecstasks.slice/ecstasks-{task}.slice/docker-{ID}.scope"),
        unit: some(format!("docker-{ID}.scope")),
        container: some(format!("docker://{ID}")),
        ..Layout::default()
    });
    check(Layout {
        path: "/default/web1".into(),
        container: some("containerd://web1"),
        ..Layout::default()
    });
    check(Layout {
        path: format!("/system.slice/nerdctl-{ID}.scope"),
        unit: some(format!("nerdctl-{ID}.scope")),
        container: some(format!("containerd://{ID}")),
        ..Layout::default()
    });
    check(Layout {
        path: "/qemu.slice/100.scope".into(),
        unit: some("100.scope"),
        ..Layout::default()
    });
    for path in [
        "/firecracker/551e7604-e35c-42b3-b825-416853441234",
        "/",
        "/user",
    ] {
        check(Layout {
            path: path.into(),
            ..Layout::default()
        });
    }
}

/// Names that only look like a container's.
#[test]
fn forgeries() {
    // Folders below a user's manager are the user's.
    let user = "/user.slice/user-1000.slice/user@1000.service";
    check(Layout {
        path: format!("{user}/kubepods/pod{UID}/{ID}"),
        unit: some("user@1000.service"),
        ..Layout::default()
    });
    for path in [
        format!("/docker/{}", &ID[1..]),
        format!("/docker/{}g", &ID[1..]),
        "/kubepods/pod..".to_owned(),
        "/docker".to_owned(),
        "/podfoo/x".to_owned(),
    ] {
        check(Layout {
            path,
            ..Layout::default()
        });
    }
}

#[test]
fn of_several_hierarchies_the_telling_one() {
    let of = |text: &str| of_process(text.as_bytes()).unwrap();
    // runc before 1.1 on a hybrid host.
    let hybrid = format!(
        "4:memory:/kubepods/burstable/pod{UID}/{ID}\n1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n\
         0::/system.slice/containerd.service\n"
    );
    assert_eq!(of(&hybrid).pod_uid.as_deref(), Some(UID));
    // systemd without memory accounting.
    let legacy = "4:memory:/system.slice\n1:name=systemd:/system.slice/ssh.service\n0::/\n";
    assert_eq!(of(legacy).cgroup, "/system.slice/ssh.service");
    let machine = "4:memory:/machine/qemu-1-a.libvirt-qemu/emulator\n1:name=systemd:/system.slice/libvirtd.service\n";
    assert_eq!(of(machine).cgroup, "/machine/qemu-1-a.libvirt-qemu");
    assert_eq!(of("3:cpu:/\n2:memory:/batch\n0::/\n").cgroup, "/batch");
    assert_eq!(of("0::/\n").cgroup, "/");
    assert_eq!(
        of(&format!("0::/docker/{ID} (deleted)\n")).cgroup,
        format!("/docker/{ID}")
    );
    assert_eq!(of_process(b""), None);
}

/// What becomes of any text of `/proc/PID/cgroup`.
fn holds(text: &[u8]) {
    let Some(found) = of_process(text) else {
        return;
    };
    assert!(found.cgroup.starts_with('/') && found.cgroup.len() <= PATH_LIMIT);
    let container = found.container.map(|container| container.id);
    for name in [found.unit, container, found.pod_uid.clone()]
        .into_iter()
        .flatten()
    {
        assert!(!name.is_empty() && name.len() <= NAME_LIMIT, "{name:?}");
        assert_eq!(name, crate::subjects::names::printable(name.as_bytes()));
    }
    if let Some(uid) = found.pod_uid {
        assert!(matches!(uid.len(), 32 | 36), "{uid}");
    }
}

#[test]
fn fuzz_cgroup_text() {
    bolero::check!(name = "cgroup_text").for_each(holds);
}

proptest! {
    /// Paths of the words that mean something.
    #[test]
    fn any_layout(words in prop::collection::vec(prop::sample::select(vec![
        "docker", "kubepods", "kubepods.slice", "lxc", "lxc.payload", "ecs", "machine.slice", "..", "",
        "user@1000.service", "default", "kata_", "libvirt", "system.slice", "a.service",
        "pod0b3c1d2e-4f56-4789-8abc-def012345678", "machine-qemu\\x2d1\\x2da.scope", "systemd-nspawn@.service",
        "4d5b9c2f0e1a3847561029384756abcdefabcdef0123456789abcdef01234567",
        "crio-4d5b9c2f0e1a3847561029384756abcdefabcdef0123456789abcdef01234567.scope",
    ]), 0..8)) {
        holds(format!("0::/{}\n", words.join("/")).as_bytes());
    }
}
