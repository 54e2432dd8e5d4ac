//! What a VMM's command line tells: the name and the UUID of its guest.
//!
//! Pure. A VMM's arguments are its operator's, but parts of them can be its tenant's; a name is a
//! name, whatever it says.

use serde::{Deserialize, Serialize};

use super::{
    cgroup::CgroupIdentity,
    names::{NAME_LIMIT, printable_within},
};

mod arguments;
mod cloud_hypervisor;
mod crosvm;
mod firecracker;
mod gvisor;
mod kvmtool;
mod machine;
mod qemu;
pub mod uuid;
pub mod vcpu;

/// How a VM is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmNaming {
    /// The operator's name; may repeat. Printable, at most [`NAME_LIMIT`] bytes.
    pub name: String,
    /// Lower case, 8-4-4-4-12; never all zeros.
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

    /// By the file that it runs. Where that cannot be read, by the name that it was called by.
    fn of(exe: &[u8], argv: &[&[u8]], comm: &[u8]) -> Self {
        let called = argv.first().copied().unwrap_or_default();
        [exe, called, comm]
            .into_iter()
            .find(|name| !name.is_empty())
            .map_or(Self::Other, Self::by_file)
    }

    fn by_file(path: &[u8]) -> Self {
        let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        // Nix wraps `qemu-system-x86_64` into `.qemu-system-x86_64-wrapped`.
        let file = file.strip_prefix(b".").unwrap_or(file);
        let starts = |name: &[u8]| file.starts_with(name);
        if starts(b"qemu-system-") || starts(b"qemu-kvm") || file == b"qemu" || file == b"kvm" {
            Self::Qemu
        } else if starts(b"firecracker") {
            Self::Firecracker
        // comm has room for 15 bytes.
        } else if starts(b"cloud-hyperviso") {
            Self::CloudHypervisor
        } else if starts(b"crosvm") {
            Self::Crosvm
        } else if starts(b"lkvm") || starts(b"kvmtool") {
            Self::Kvmtool
        } else if starts(b"runsc") {
            Self::Gvisor
        } else {
            Self::Other
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

impl Evidence {
    /// Its name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CommandLine => "command_line",
            Self::Socket => "socket",
            Self::Cgroup => "cgroup",
            Self::Comm => "comm",
        }
    }
}

/// What a VMM's arguments tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    name: Option<(Vec<u8>, Evidence)>,
    uuid: Option<String>,
}

/// Names the guest of a VMM by the best of what is known.
///
/// `exe` is the file that it runs, `argv` its arguments with the program's name first; both may be
/// empty. `comm` is the group leader's.
pub fn name_vm(exe: &[u8], argv: &[&[u8]], comm: &[u8], cgroup: &CgroupIdentity) -> VmNaming {
    let vmm = Vmm::of(exe, argv, comm);
    let arguments = argv.get(1..).unwrap_or_default();
    let told = match vmm {
        Vmm::Qemu => qemu::told(arguments),
        Vmm::Firecracker => firecracker::told(arguments, &cgroup.cgroup),
        Vmm::CloudHypervisor => cloud_hypervisor::told(arguments),
        Vmm::Crosvm => crosvm::told(arguments),
        Vmm::Kvmtool => kvmtool::told(arguments),
        Vmm::Gvisor => gvisor::told(arguments),
        Vmm::Other => Told::default(),
    };
    let (name, evidence) = told
        .name
        .filter(|(name, _)| !name.is_empty())
        .or_else(|| Some((machine::name(&cgroup.cgroup)?, Evidence::Cgroup)))
        .unwrap_or_else(|| (comm.to_vec(), Evidence::Comm));
    // A label without a value is none.
    let name = if name.is_empty() {
        vmm.name().as_bytes().to_vec()
    } else {
        name
    };
    VmNaming {
        name: printable_within(&name, NAME_LIMIT),
        uuid: told.uuid,
        vmm,
        evidence,
    }
}

#[cfg(test)]
mod command_lines;
