//! Where the host's file systems are mounted for the agent.

use std::path::PathBuf;

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

impl Paths {
    /// A file or folder of one process, or of a thread: `/proc/PID/entry`.
    pub fn process(&self, pid: u32, entry: &str) -> PathBuf {
        let mut path = self.procfs.join(pid.to_string());
        path.push(entry);
        path
    }
}
