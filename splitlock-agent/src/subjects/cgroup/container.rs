//! The container, the pod or the libvirt machine that a cgroup belongs to, by the layouts of the
//! runtimes.

use super::{Container, Runtime, unit};
use crate::subjects::names::{NAME_LIMIT, printable_within};

/// What a path tells of containers.
pub struct Found {
    /// Where the path of the container's or the machine's own cgroup ends.
    pub end: usize,
    /// The container.
    pub container: Option<Container>,
    /// The pod's uid.
    pub pod_uid: Option<String>,
}

/// Looks for the outermost container: what is further inside was named by whoever is in it, and
/// could be any name. Only a Kubernetes node that is itself a container of Docker or Podman (kind,
/// k3d, minikube) is looked into, by its kubelet's folders.
///
/// Nor is anything believed that a user's manager would have made: its folders are the user's, who
/// could blame another's container. A rootless container is told by its unit.
pub fn find(path: &[u8]) -> Found {
    let mut found = Found {
        end: path.len(),
        container: None,
        pod_uid: None,
    };
    let mut parents: Vec<&[u8]> = Vec::new();
    let mut pods_from = None;
    let mut is_users = false;
    for (component, end) in components(path) {
        let is_node = found
            .container
            .as_ref()
            .is_some_and(|outer| matches!(outer.runtime, Some(Runtime::Docker | Runtime::Podman)));
        if found.container.is_some() && !is_node {
            break;
        }
        if !is_users && (contains(component, b"kubepods") || pods_from.is_some()) {
            pods_from.get_or_insert(parents.len());
            if let Some(uid) = pod_uid(component) {
                found.pod_uid = Some(uid);
            }
        }
        let inside = found.container.is_some();
        let in_pods = pods_from.is_some();
        if !is_users
            && (!inside || in_pods)
            && let Some(container) = container(component, &parents, in_pods)
        {
            found.end = end;
            found.container = Some(container);
            if in_pods {
                break;
            }
        }
        if !inside && is_machine(component) {
            found.end = end;
            break;
        }
        is_users |= unit::is_user_manager(component);
        parents.push(component);
    }
    found
}

/// The components of a path, each with where it ends.
fn components(path: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut end = 0;
    path.split(|byte| *byte == b'/')
        .filter_map(move |component| {
            end += component.len();
            let item = (component, end);
            end += 1;
            (!component.is_empty()).then_some(item)
        })
}

/// The container whose own cgroup this component is.
fn container(component: &[u8], parents: &[&[u8]], in_pods: bool) -> Option<Container> {
    let (runtime, id) = by_prefix(component)
        .or_else(|| by_parent(component, parents))
        .or_else(|| system_container(component, parents))
        .or_else(|| unnamed(component, in_pods))?;
    Some(Container {
        runtime,
        id: printable_within(&id, NAME_LIMIT),
    })
}

type NamedContainer = (Option<Runtime>, Vec<u8>);

/// `PREFIX-ID.scope` of the systemd drivers (runc, libcontainer/cgroups/systemd `getUnitName`;
/// crun's `libcrun` does the same), `PREFIX-ID` of the cgroupfs drivers, and
/// `SLICE:PREFIX:ID`, which is a systemd path given to a runtime with the cgroupfs driver.
fn by_prefix(component: &[u8]) -> Option<NamedContainer> {
    let name = component.strip_suffix(b".scope").unwrap_or(component);
    let (prefix, id) = split_id(name)?;
    let prefix = match prefix.iter().rposition(|byte| *byte == b':') {
        Some(colon) => &prefix[colon + 1..],
        None => prefix,
    };
    let runtime = match prefix {
        b"docker" => Runtime::Docker,
        b"cri-containerd" | b"containerd" | b"nerdctl" => Runtime::Containerd,
        b"crio" => Runtime::CriO,
        // `libpod-payload` is what `--cgroups=split` makes in a Quadlet's service.
        b"libpod" | b"libpod-payload" => Runtime::Podman,
        // The monitors of containers are no containers.
        b"crio-conmon" | b"libpod-conmon" => return None,
        _ => return None,
    };
    Some((Some(runtime), id.to_vec()))
}

/// Cgroupfs drivers that have a folder of their own: `/docker/ID`, `/ecs/TASK/ID` (Amazon ECS agent,
/// task cgroups), and containerd's `/NAMESPACE/ID` for its own clients (`ctr`, nerdctl).
fn by_parent(component: &[u8], parents: &[&[u8]]) -> Option<NamedContainer> {
    let owned = |runtime| Some((Some(runtime), component.to_vec()));
    match parents {
        [.., b"docker"] if is_id(component) => owned(Runtime::Docker),
        [b"ecs", _] | [b"ecs", _, _] if is_id(component) => owned(Runtime::Docker),
        // On Fargate: the task's id and a number.
        [.., b"ecs", task] if component.starts_with(task) && component != *task => {
            Some((None, component.to_vec()))
        }
        [b"default" | b"k8s.io" | b"nerdctl"] => owned(Runtime::Containerd),
        _ => None,
    }
}

/// Containers that have names: LXC (`lxc.payload.NAME`, before 4.0.3 `lxc.payload/NAME`, before 4.0
/// `lxc/NAME`, as Proxmox has it still; lxc `cgfsng.c`), systemd-nspawn, libvirt's LXC driver.
fn system_container(component: &[u8], parents: &[&[u8]]) -> Option<NamedContainer> {
    if let Some(name) = component.strip_prefix(b"lxc.payload.")
        && !name.is_empty()
    {
        return Some((Some(Runtime::Lxc), name.to_vec()));
    }
    match parents {
        [] => return None,
        [.., b"lxc" | b"lxc.payload"] => return Some((Some(Runtime::Lxc), component.to_vec())),
        _ => {}
    }
    if let Some(name) = component
        .strip_prefix(b"systemd-nspawn@")
        .and_then(|name| name.strip_suffix(b".service"))
        && !name.is_empty()
    {
        return Some((Some(Runtime::Nspawn), unit::unescape(name)));
    }
    if parents.last() != Some(&b"machine.slice".as_slice()) {
        return None;
    }
    let machine = machine_name(component)?;
    if let Some(name) = libvirt_domain(&machine, b"lxc-") {
        return Some((Some(Runtime::Lxc), name.to_vec()));
    }
    // Registered with systemd-machined: nspawn, or a VM (systemd-vmspawn).
    (!is_libvirt(&machine)).then_some((None, machine))
}

/// An id without a runtime: `/kubepods/…/podUID/ID` of the kubelet's cgroupfs driver, any other
/// parent that was chosen by hand, Kata's `kata_ID`.
fn unnamed(component: &[u8], in_pods: bool) -> Option<NamedContainer> {
    let name = component.strip_suffix(b".scope").unwrap_or(component);
    if let Some((prefix, id)) = split_id(name) {
        return (in_pods && !prefix.ends_with(b"conmon")).then(|| (None, id.to_vec()));
    }
    let id = name.strip_prefix(b"kata_").unwrap_or(name);
    is_id(id).then(|| (None, id.to_vec()))
}

/// Splits `PREFIX-ID` or `PREFIX:ID`.
fn split_id(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, id) = name.split_at_checked(name.len().checked_sub(64)?)?;
    let prefix = rest
        .strip_suffix(b"-")
        .or_else(|| rest.strip_suffix(b":"))?;
    (is_id(id) && !prefix.is_empty()).then_some((prefix, id))
}

/// 64 hexadecimal digits, as all OCI engines make them (moby, libpod, CRI-O and containerd's CRI
/// `GenerateID`).
fn is_id(text: &[u8]) -> bool {
    text.len() == 64 && is_lower_hex(text)
}

fn is_lower_hex(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The uid in `podUID` (cgroupfs) or `…-podUID.slice` (systemd, where dashes are underscores;
/// kubelet, pkg/kubelet/cm/pod_container_manager_linux.go). Static pods have a hash of 32 digits.
fn pod_uid(component: &[u8]) -> Option<String> {
    // With a runtime's name behind it: `kubepods-podUID.slice:cri-containerd:ID`.
    let component = component.split(|byte| *byte == b':').next()?;
    let name = component.strip_suffix(b".slice").unwrap_or(component);
    let uid = match name.strip_prefix(b"pod") {
        Some(uid) => uid,
        None => {
            let at = name.windows(4).rposition(|window| window == b"-pod")?;
            &name[at + 4..]
        }
    };
    let uid: String = std::str::from_utf8(uid).ok()?.replace('_', "-");
    let groups: Vec<usize> = uid.split('-').map(str::len).collect();
    let digits = uid.replace('-', "");
    (is_lower_hex(digits.as_bytes()) && matches!(groups[..], [8, 4, 4, 4, 12] | [32]))
        .then_some(uid)
}

/// Whether this is the cgroup of a libvirt machine: a scope of systemd's, or without systemd
/// `NAME.libvirt-qemu` (libvirt, src/util/vircgroup.c `virCgroupNewMachineManual`).
fn is_machine(component: &[u8]) -> bool {
    component.ends_with(b".libvirt-qemu")
        || component.ends_with(b".libvirt-lxc")
        || machine_name(component).is_some_and(|machine| is_libvirt(&machine))
}

/// The name in `machine-NAME.scope`.
pub fn machine_name(component: &[u8]) -> Option<Vec<u8>> {
    let name = component
        .strip_prefix(b"machine-")?
        .strip_suffix(b".scope")?;
    (!name.is_empty()).then(|| unit::unescape(name))
}

fn is_libvirt(machine: &[u8]) -> bool {
    [b"qemu-".as_slice(), b"lxc-", b"ch-"]
        .into_iter()
        .any(|driver| libvirt_domain(machine, driver).is_some())
}

/// The domain in libvirt's `DRIVER-ID-NAME`, `DRIVER-USER-ID-NAME` or `DRIVER-embed-HASH-ID-NAME`
/// (src/hypervisor/domain_driver.c, `virDomainDriverGenerateMachineName`): up to 64 bytes, without
/// what no host name may hold.
pub fn libvirt_domain<'a>(machine: &'a [u8], driver: &[u8]) -> Option<&'a [u8]> {
    let mut rest = machine.strip_prefix(driver)?;
    if let Some(embedded) = rest.strip_prefix(b"embed-") {
        // The hash could be of digits alone.
        (_, rest) = split_dash(embedded)?;
    }
    let (first, behind) = split_dash(rest)?;
    let name = if is_number(first) {
        behind
    } else {
        let (id, name) = split_dash(behind)?;
        is_number(id).then_some(name)?
    };
    (!name.is_empty()).then_some(name)
}

fn split_dash(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let dash = text.iter().position(|byte| *byte == b'-')?;
    Some((&text[..dash], &text[dash + 1..]))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}
