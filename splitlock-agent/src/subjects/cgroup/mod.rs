//! What a cgroup's path tells: the systemd unit, the container, the pod.
//!
//! Pure: [`by_id`] alone asks the kernel.

use serde::{Deserialize, Serialize};

use super::names::{NAME_LIMIT, PATH_LIMIT, printable_within};

mod ancestor;
pub mod by_id;
mod container;
mod membership;
mod unit;

pub use ancestor::runtime_of_ancestor;
pub use container::{libvirt_domain, machine_name};
pub use membership::is_outside_view;

/// Whose a cgroup is. All texts are printable and bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CgroupIdentity {
    /// Path from the root of the hierarchy, beginning with `/`, cut at the container's or the
    /// machine's own cgroup: what cAdvisor has as `id`.
    pub cgroup: String,
    /// systemd unit, as `systemctl` names it; a user's own as `user@UID.service/UNIT`.
    pub unit: Option<String>,
    /// Container.
    pub container: Option<Container>,
    /// Pod's uid: with dashes, or a static pod's 32 hexadecimal digits.
    pub pod_uid: Option<String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Container {
    /// What runs it; `None` where the path does not say.
    pub runtime: Option<Runtime>,
    /// Its id, or its name where the runtime has names only (LXC, systemd-nspawn).
    pub id: String,
}

impl Container {
    /// As kube-state-metrics has it in `container_id`: `containerd://ID`; the bare id where the
    /// runtime is not known.
    pub fn label(&self) -> String {
        match self.runtime {
            Some(runtime) => format!("{}://{}", runtime.name(), self.id),
            None => self.id.clone(),
        }
    }
}

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// containerd, also as the kubelet's runtime.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker (moby).
    Docker,
    /// Podman, and what else uses libpod.
    Podman,
    /// LXC, LXD, Incus, Proxmox containers, libvirt's LXC driver.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
}

impl Runtime {
    /// Its scheme in a container id.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
        }
    }
}

/// Whose the cgroup of a process is, by its `/proc/PID/cgroup`; `None` if that names none.
///
/// Of several hierarchies the first counts that tells of a container, a pod or a machine: on a
/// hybrid host a runtime without support for it leaves the process where the v2 hierarchy says
/// nothing but the runtime's own service (runc before 1.1). Else the first that is not the root.
pub fn of_process(text: &[u8]) -> Option<CgroupIdentity> {
    let paths = membership::paths(text);
    let identities: Vec<_> = paths.iter().map(|path| (of_path(path), path)).collect();
    identities
        .iter()
        .find(|(identity, path)| {
            identity.container.is_some()
                || identity.pod_uid.is_some()
                || identity.cgroup.len() < path.len().min(PATH_LIMIT)
        })
        .or_else(|| {
            identities
                .iter()
                .find(|(identity, _)| identity.unit.is_some())
        })
        .or_else(|| identities.iter().find(|(_, path)| **path != b"/"))
        .or_else(|| identities.first())
        .map(|(identity, _)| identity.clone())
}

/// Whose the cgroup of this path is.
pub fn of_path(path: &[u8]) -> CgroupIdentity {
    let found = container::find(path);
    CgroupIdentity {
        cgroup: printable_within(&path[..found.end], PATH_LIMIT),
        unit: unit::of_path(path).map(|unit| printable_within(&unit, NAME_LIMIT)),
        container: found.container,
        pod_uid: found.pod_uid,
    }
}

#[cfg(test)]
mod layouts;
