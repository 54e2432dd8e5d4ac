//! Finding tracefs. Where nobody has mounted it, the agent mounts it for itself alone.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Where the kernel provides for tracefs, newest convention first; aya looks in the same places.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// How tracefs came to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracefs {
    /// It was mounted, or mounted itself.
    Found(PathBuf),
    /// The agent mounted it in a mount namespace of its own; nobody else sees it, and it ends
    /// with the agent.
    Private(PathBuf),
    /// It is not there: why, and what would help.
    Missing(String),
}

/// Finds tracefs or mounts it privately.
///
/// Call it before any thread is started: a mount namespace belongs to the calling thread, and
/// threads that it starts later inherit it.
pub fn provide() -> Tracefs {
    match PLACES.iter().map(Path::new).find(|path| is_tracefs(path)) {
        Some(path) => Tracefs::Found(path.to_owned()),
        None => mount_privately(Path::new(PLACES[0])),
    }
}

/// Looking inside also triggers the automount below debugfs.
fn is_tracefs(path: &Path) -> bool {
    path.join("events").is_dir()
}

fn mount_privately(place: &Path) -> Tracefs {
    match try_mount_privately(place) {
        Ok(()) => Tracefs::Private(place.to_owned()),
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            Tracefs::Missing(format!(
                "tracefs is mounted on {} but shows no events: the kernel may be locked down, see \
                 /sys/kernel/security/lockdown",
                place.display()
            ))
        }
        Err(error) => Tracefs::Missing(format!(
            "tracefs is not mounted and could not be mounted for the agent alone ({error}); run: \
             mount -t tracefs nodev {}",
            place.display()
        )),
    }
}

fn try_mount_privately(place: &Path) -> io::Result<()> {
    // SAFETY: only the mount namespace is left behind, no descriptor table or memory is shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // What is mounted from here on must not spread; what the host mounts may still come in.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    match mount_change("/", flags) {
        // The root of a container may be no mount point; then there is nothing to spread to.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("nodev", place, "tracefs", flags, None)?;
    Ok(())
}
