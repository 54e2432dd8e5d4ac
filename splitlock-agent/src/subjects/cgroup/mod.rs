//! What a cgroup's path tells: the systemd unit, the container, the pod.

use serde::{Deserialize, Serialize};

/// Whose a cgroup is. All texts are printable and bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CgroupIdentity {
    /// Path from the root of the hierarchy, beginning with `/`, cut at the container's or the
    /// machine's own cgroup: what cAdvisor has as `id`.
    pub cgroup: String,
    /// systemd unit, as `systemctl` names it; the user's unit below `user@UID.service`.
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
    #[serde(rename = "cri-o")]
    CriO,
    /// Docker (moby).
    Docker,
    /// Podman, and what else uses libpod.
    Podman,
    /// LXC, LXD, Incus, Proxmox containers.
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

/// Whose the cgroup of this path is.
pub fn of_path(path: &[u8]) -> CgroupIdentity {
    CgroupIdentity {
        cgroup: super::names::printable(path),
        ..CgroupIdentity::default()
    }
}
