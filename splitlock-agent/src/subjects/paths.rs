//! Where the host's file systems are mounted for the agent.

use std::{ffi::OsString, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

/// Mount points. In a container they differ from the host's; `procfs` must be one of the initial
/// pid namespace, as the kernel side's pids are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The host's `/proc`.
    pub procfs: PathBuf,
    /// The host's `/sys`, with the cgroup hierarchies under `fs/cgroup`.
    pub sysfs: PathBuf,
    /// The host's `/`.
    pub rootfs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            rootfs: "/".into(),
        }
    }
}

/// Inode of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

impl Paths {
    /// Checks that pids mean here what they mean to the kernel side: those of the initial pid
    /// namespace. Else processes would be taken for others, or for gone.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn check(&self) -> Result<(), String> {
        let procfs = self.procfs.display();
        let own = fs::read_link(self.procfs.join("self")).map_err(|error| {
            format!("{procfs}/self: {error}; --path.procfs names the host's /proc")
        })?;
        let namespace = fs::metadata(self.procfs.join("self/ns/pid"))
            .map_err(|error| format!("{procfs}/self/ns/pid: {error}"))?;
        if own.to_str() != Some(&std::process::id().to_string())
            || namespace.ino() != INITIAL_PID_NAMESPACE
        {
            return Err(format!(
                "the agent is not in the host's pid namespace, or {procfs} is another's: share it \
                 (--pid=host, hostPID: true)"
            ));
        }
        Ok(())
    }

    /// As flags of this program.
    pub fn flags(&self) -> Vec<OsString> {
        let Self {
            procfs,
            sysfs,
            rootfs,
        } = self;
        [
            ("--path.procfs", procfs),
            ("--path.sysfs", sysfs),
            ("--path.rootfs", rootfs),
        ]
        .into_iter()
        .flat_map(|(flag, path)| [flag.into(), path.clone().into_os_string()])
        .collect()
    }

    /// A file or folder of one process, or of a thread: `/proc/PID/entry`.
    pub fn process(&self, pid: u32, entry: &str) -> PathBuf {
        let mut path = self.procfs.join(pid.to_string());
        path.push(entry);
        path
    }
}
