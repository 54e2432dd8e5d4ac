//! cgroups of a test's own, in the v2 hierarchy.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
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

/// Those that tests use, and those that they have made and not removed yet, the outer ones first.
static KNOWN: Mutex<Known> = Mutex::new(Known {
    used: vec![],
    made: vec![],
});

struct Known {
    used: Vec<PathBuf>,
    made: Vec<PathBuf>,
}

/// A cgroup. When this value is dropped, it is removed as soon as it is empty, and those above it
/// that were not there before, once nobody uses them.
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup of this path, which begins with `/`.
    #[track_caller]
    pub fn make(path: &str) -> Self {
        let mut known = known();
        let mut folder = root().expect("checked");
        for component in Path::new(path).iter().skip(1) {
            folder.push(component);
            if fs::create_dir(&folder).is_ok() {
                known.made.push(folder.clone());
            }
        }
        known.used.push(folder.clone());
        assert!(folder.is_dir(), "{} was not made", folder.display());
        Self { folder }
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
        let Known { used, made } = &mut *known();
        if let Some(index) = used.iter().position(|used| *used == self.folder) {
            used.swap_remove(index);
        }
        let is_used = |folder: &Path| used.iter().any(|used| used.starts_with(folder));
        // A process that was killed leaves in its own time.
        while made.contains(&self.folder)
            && !is_used(&self.folder)
            && fs::remove_dir(&self.folder).is_err()
            && start.elapsed() < Duration::from_secs(2)
        {
            thread::sleep(Duration::from_millis(5));
        }
        // The inner ones first.
        made.reverse();
        made.retain(|folder| {
            folder.exists() && (is_used(folder) || fs::remove_dir(folder).is_err())
        });
        made.reverse();
    }
}

fn known() -> MutexGuard<'static, Known> {
    // A test that failed with it has left nothing half done.
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
