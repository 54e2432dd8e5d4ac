//! Cloud Hypervisor's command line: the API socket, and the platform's UUID.

use super::{
    Evidence, Told,
    arguments::{key, last_value, values},
    uuid,
};

/// Stems that say what a socket is, not whose: the examples in Cloud Hypervisor's documentation,
/// Kata's `clh-api.sock`, libvirt's `ch-monitor`.
const GENERIC: &[&[u8]] = &[
    b"api",
    b"ch",
    b"ch-api",
    b"ch-monitor",
    b"ch-socket",
    b"clh",
    b"clh-api",
    b"cloud-hypervisor",
    b"control",
    b"crosvm",
    b"crosvm_control",
    b"sock",
    b"socket",
    b"vm",
    b"vmm",
];
/// Folders that are nobody's.
const SHARED: &[&[u8]] = &[
    b"",
    b"run",
    b"tmp",
    b"var",
    b"shm",
    b"cloud-hypervisor",
    b"vm",
    b".",
];

/// It has no option for a name (options: cloud-hypervisor, src/main.rs, v38), so its API socket's
/// path names it; `--platform uuid=` is the guest's.
pub fn told(arguments: &[&[u8]]) -> Told {
    let socket = last_value(arguments, &["--api-socket"])
        .and_then(|value| key(value, "path").or((!value.starts_with(b"fd=")).then_some(value)));
    let uuid = values(arguments, &["--platform"])
        .rev()
        .find_map(|platform| uuid::normalise(key(platform, "uuid")?));
    Told {
        name: socket.and_then(by_socket),
        uuid,
    }
}

/// A guest's name in the path of its socket: the file's name without its ending, or its folder's
/// where that says nothing.
pub fn by_socket(path: &[u8]) -> Option<(Vec<u8>, Evidence)> {
    let mut components = path.rsplit(|byte| *byte == b'/');
    let file = components.next()?;
    let stem = [b".sock".as_slice(), b".socket", b".api"]
        .iter()
        .find_map(|ending| file.strip_suffix(*ending))
        .unwrap_or(file);
    let folder = components.next().unwrap_or_default();
    let name = if stem.is_empty() || GENERIC.contains(&stem) {
        Some(folder).filter(|folder| !SHARED.contains(folder))?
    } else {
        stem
    };
    Some((name.to_vec(), Evidence::Socket))
}
