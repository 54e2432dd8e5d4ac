//! Firecracker's command line, and the jailer's cgroup.

use super::{Evidence, Told, arguments::last_value, uuid};

/// `DEFAULT_INSTANCE_ID` (firecracker, src/vmm/src/vmm_config/instance_info.rs): no name.
const DEFAULT: &[u8] = b"anonymous-instance";

/// `--id` names the microVM; the jailer hands its own on (src/jailer/src/env.rs, `exec_command`),
/// and puts it into the cgroup `FILE/ID` with the file's name, or below `--parent-cgroup`
/// (docs/jailer.md). The id may be a UUID and is one then.
pub fn told(arguments: &[&[u8]], cgroup: &str) -> Told {
    let given = last_value(arguments, &["--id"]).filter(|id| !id.is_empty() && *id != DEFAULT);
    let (id, evidence) = match given {
        Some(id) => (Some(id), Evidence::CommandLine),
        None => (jailed(cgroup.as_bytes()), Evidence::Cgroup),
    };
    Told {
        uuid: id.and_then(uuid::normalise),
        name: id.map(|id| (id.to_vec(), evidence)),
    }
}

/// The component behind `firecracker…`.
fn jailed(cgroup: &[u8]) -> Option<&[u8]> {
    let mut components = cgroup.split(|byte| *byte == b'/');
    components.find(|component| {
        // systemd's cgroups are none of the jailer's.
        let is_unit = [b".service".as_slice(), b".scope", b".slice"]
            .iter()
            .any(|suffix| component.ends_with(suffix));
        component.starts_with(b"firecracker") && !is_unit
    })?;
    components.next().filter(|id| !id.is_empty())
}
