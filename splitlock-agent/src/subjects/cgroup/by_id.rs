//! A cgroup's path by its id, for processes that are gone.

use std::{
    collections::HashMap,
    fs, io,
    mem::offset_of,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::fs::{Mode, OFlags, fstatfs, open};
use tracing::debug;

use crate::subjects::paths::Paths;

/// `CGROUP2_SUPER_MAGIC` (uapi/linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// `FILEID_KERNFS` (linux/exportfs.h, 5.5+): a handle of 8 bytes, the kernfs node's id. For a cgroup
/// that is what `bpf_get_current_cgroup_id` returns.
const FILEID_KERNFS: i32 = 0xfe;
/// Paths that are remembered.
const CAPACITY: usize = 1024;

/// The v2 hierarchy. Paths are remembered: an id is not given twice (64 bit, counted up; kernfs
/// `__kernfs_new_node`), and a v2 cgroup cannot be renamed (`cgroup1_rename` alone exists), so a
/// path stays true for good, and 10,000 dead processes of one cgroup cost one look.
#[derive(Debug)]
pub struct CgroupsById {
    /// Its mount; `None` where the kernel's ids cannot be resolved.
    mount: Option<Mount>,
    known: Mutex<HashMap<u64, Option<Vec<u8>>>>,
}

#[derive(Debug)]
struct Mount {
    root: OwnedFd,
    /// As this process names it.
    path: Vec<u8>,
}

impl CgroupsById {
    /// Of the hierarchy mounted at `fs/cgroup` or `fs/cgroup/unified` below `sysfs`.
    pub fn new(paths: &Paths) -> Self {
        let cgroup = paths.sysfs.join("fs/cgroup");
        let mount = Mount::open(&cgroup).or_else(|_| Mount::open(&cgroup.join("unified")));
        if let Err(error) = &mount {
            debug!(path = %cgroup.display(), %error, "no cgroup2 here");
        }
        Self {
            mount: mount.ok(),
            known: Mutex::default(),
        }
    }

    /// The path of the cgroup with this id, from the root of the hierarchy; `None` if it has been
    /// removed.
    ///
    /// # Errors
    /// There is no v2 hierarchy, or the kernel does not let this process look
    /// (CAP_DAC_READ_SEARCH).
    pub fn path(&self, id: u64) -> io::Result<Option<Vec<u8>>> {
        let mount = self.mount.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        // A panic elsewhere leaves the map whole: it is only ever inserted into and cleared.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = known.get(&id) {
            return Ok(path.clone());
        }
        let path = mount.path_of(id)?;
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(id, path.clone());
        Ok(path)
    }
}

impl Mount {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(path, flags, Mode::empty())?;
        if u64::try_from(fstatfs(&root)?.f_type) != Ok(CGROUP2_MAGIC) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not cgroup2"));
        }
        let path = name_of(&root)?;
        Ok(Self { root, path })
    }

    fn path_of(&self, id: u64) -> io::Result<Option<Vec<u8>>> {
        let cgroup = match open_by_id(&self.root, id) {
            Ok(cgroup) => cgroup,
            // ESTALE: no such node, or one that is being removed (`kernfs_fh_to_dentry`).
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Ok(None),
            Err(error) => return Err(error),
        };
        let name = name_of(&cgroup)?;
        // `d_path` of a cgroup that was removed since.
        if name.ends_with(b" (deleted)") {
            return Ok(None);
        }
        let mount = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        match name.strip_prefix(mount) {
            Some(b"") => Ok(Some(b"/".to_vec())),
            Some(path) if path.starts_with(b"/") => Ok(Some(path.to_vec())),
            // Outside the part of the hierarchy that is mounted here.
            _ => Ok(None),
        }
    }
}

/// The name of an open file in this process's mount namespace, by its own `/proc`.
fn name_of(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(fs::read_link(link)?.into_os_string().into_vec())
}

/// `struct file_handle` (uapi/linux/fs.h) with a kernfs node's id.
#[repr(C)]
struct KernfsHandle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}

fn open_by_id(root: &OwnedFd, id: u64) -> io::Result<OwnedFd> {
    const { assert!(offset_of!(KernfsHandle, id) == size_of::<libc::file_handle>()) };
    let mut handle = KernfsHandle {
        bytes: 8,
        kind: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    // SAFETY: the kernel reads the handle's head and the 8 bytes behind it that the head announces,
    // and writes nothing.
    let file = unsafe {
        libc::open_by_handle_at(
            root.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, process};

    use super::*;

    /// The v2 hierarchy's folder and a resolver, where this machine and user have them.
    fn hierarchy() -> Option<(std::path::PathBuf, CgroupsById)> {
        let cgroups = CgroupsById::new(&Paths::default());
        let Some(mount) = &cgroups.mount else {
            eprintln!("skipped: no cgroup2 is mounted");
            return None;
        };
        let path = std::ffi::OsString::from_vec(mount.path.clone()).into();
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: not root");
            return None;
        }
        Some((path, cgroups))
    }

    #[test]
    fn a_cgroup_by_its_id() {
        let Some((root, cgroups)) = hierarchy() else {
            return;
        };
        let name = format!("splitlock-test-{}", process::id());
        let folder = root.join(&name);
        if let Err(error) = fs::create_dir(&folder) {
            eprintln!("skipped: {}: {error}", folder.display());
            return;
        }
        // The inode number of a cgroup's folder is its id.
        let id = fs::metadata(&folder).unwrap().ino();
        let first = cgroups.path(id);
        fs::remove_dir(&folder).unwrap();
        assert_eq!(first.unwrap(), Some(format!("/{name}").into_bytes()));
        // Remembered, and still true of the processes that were in it.
        assert_eq!(
            cgroups.path(id).unwrap(),
            Some(format!("/{name}").into_bytes())
        );
        // Who looks only now finds nothing.
        let late = CgroupsById::new(&Paths::default());
        assert_eq!(late.path(id).unwrap(), None);
        let root_id = fs::metadata(&root).unwrap().ino();
        assert_eq!(late.path(root_id).unwrap(), Some(b"/".to_vec()));
    }

    #[test]
    fn memory_is_bounded() {
        let Some((_, cgroups)) = hierarchy() else {
            return;
        };
        for id in 0..3 * CAPACITY as u64 {
            assert_eq!(cgroups.path(u64::MAX - id).unwrap(), None);
        }
        assert!(cgroups.known.lock().unwrap().len() <= CAPACITY);
    }

    #[test]
    fn without_the_hierarchy() {
        let paths = Paths {
            sysfs: "/nowhere".into(),
            ..Paths::default()
        };
        let error = CgroupsById::new(&paths).path(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
