//! cgroups of a test's own, in the v2 hierarchy.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Where the v2 hierarchy is mounted: alone, or beside v1 hierarchies.
fn root() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(PathBuf::from)
        .find(|root| root.join("cgroup.controllers").exists())
}

/// Whether cgroups can be made here.
pub fn available() -> Result<(), String> {
    let root = root().ok_or("no v2 hierarchy of cgroups is mounted")?;
    let probe = root.join(format!("splitlock-probe-{}", std::process::id()));
    fs::create_dir(&probe)
        .and_then(|()| fs::remove_dir(&probe))
        .map_err(|error| format!("no cgroup can be made in {}: {error}", root.display()))
}

/// A cgroup, and those above it that were not there before. They are removed when this value is
/// dropped, which waits until they are empty.
pub struct Cgroup {
    folder: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the cgroup of this path, which begins with `/`.
    #[track_caller]
    pub fn make(path: &str) -> Self {
        let root = root().expect("checked");
        let mut folder = root;
        let mut made = vec![];
        for component in Path::new(path).iter().skip(1) {
            folder.push(component);
            // Another test may have made one above.
            if fs::create_dir(&folder).is_ok() {
                made.push(folder.clone());
            }
        }
        assert!(folder.is_dir(), "{} was not made", folder.display());
        Self { folder, made }
    }

    /// Moves a process in.
    #[track_caller]
    pub fn add(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).expect("the process moves");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let start = Instant::now();
        for folder in self.made.iter().rev() {
            // A process that was killed leaves in its own time. What others use stays.
            while fs::remove_dir(folder).is_err() && start.elapsed() < Duration::from_secs(2) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
