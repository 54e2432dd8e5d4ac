//! Opening files that tenants name or hold: regular ones only, below the root that they see.
//!
//! Opening a device, a FIFO or a socket does something to it, so every file is looked at before it
//! is opened (`O_PATH`), and what was looked at is what is opened.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use super::maps::Mapping;
use crate::subjects::paths::Paths;

/// What tells a file's contents from others', as far as its file system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileKey {
    /// Of an open file.
    ///
    /// # Errors
    /// Its file system does not tell.
    pub fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// The root of a file tree.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    /// Where it is in the agent's own tree, `/` if it is in none or is that tree's.
    path: Vec<u8>,
}

impl Root {
    /// That a process sees.
    ///
    /// # Errors
    /// The process is gone, or out of reach.
    pub fn of_process(paths: &Paths, tid: u32) -> io::Result<Self> {
        let link = paths.process(tid, "root");
        // A root in another mount namespace reads as `/`.
        let path = fs::read_link(&link)?.into_os_string().into_vec();
        Ok(Self {
            path,
            ..Self::at(&link)?
        })
    }

    /// At a path of the agent's.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty())?;
        let path = b"/".to_vec();
        Ok(Self { folder, path })
    }

    /// The path, as it is below this root, of a file that the kernel names for the agent.
    pub fn inside<'a>(&self, name: &'a [u8]) -> &'a [u8] {
        name.strip_prefix(&self.path[..])
            .filter(|rest| rest.first() == Some(&b'/'))
            .unwrap_or(name)
    }

    /// Opens a regular file below this root; links do not lead out of it.
    ///
    /// # Errors
    /// There is none, or it is out of reach.
    pub fn open(&self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = match openat2(&self.folder, path, flags, Mode::empty(), resolve) {
            // Before Linux 5.6. A link may lead out of the root there; what is found is believed
            // by its build id alone.
            Err(Errno::NOSYS) => {
                let start = path.iter().position(|byte| *byte != b'/');
                let relative = &path[start.unwrap_or(path.len())..];
                openat(&self.folder, relative, flags, Mode::empty())
            }
            found => found,
        };
        reopen(&found?)
    }
}

/// Opens what a link of `/proc` leads to, if it is a regular file.
///
/// # Errors
/// It is none, or out of reach.
pub fn open_link(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    reopen(&openat(CWD, path, flags, Mode::empty())?)
}

/// Opens the file behind a mapping: that very one where the kernel allows it, else the one that has
/// its path now, if it is the same.
///
/// # Errors
/// Why not, in words.
pub fn open_mapped(
    paths: &Paths,
    tid: u32,
    mapping: &Mapping,
    root: Option<&Root>,
) -> Result<File, String> {
    let Mapping { start, end, .. } = mapping;
    // Needs CAP_SYS_ADMIN, from 5.9 CAP_CHECKPOINT_RESTORE (`proc_map_files_get_link`, fs/proc/base.c).
    let direct = open_link(&paths.process(tid, &format!("map_files/{start:x}-{end:x}")));
    let refused = match direct {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    let by_path = root.map(|root| root.open(root.inside(&mapping.name)));
    let found = match by_path {
        Some(Ok(found)) => found,
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(
                "the file is no longer at its path, and opening what is mapped needs \
                        CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE"
                    .to_owned(),
            );
        }
        Some(Err(error)) => return Err(format!("the file cannot be opened: {error}")),
        None => return Err(format!("the file cannot be opened: {refused}")),
    };
    if is_behind(&found, mapping) {
        Ok(found)
    } else {
        Err("another file is at its path now".to_owned())
    }
}

/// Whether a mapping's file is this one. File systems without a device of their own (btrfs,
/// overlayfs) may tell `stat` another device than `maps`.
fn is_behind(file: &File, mapping: &Mapping) -> bool {
    let Ok(found) = file.metadata() else {
        return false;
    };
    let device = found.dev();
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let has_none = device.0 == 0 && mapping.device.0 == 0;
    found.ino() == mapping.inode && (device == mapping.device || has_none)
}

fn reopen(found: &OwnedFd) -> io::Result<File> {
    let stat = rustix::fs::fstat(found)?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Whether two paths name one file, for a file's own folder.
pub(super) fn folder(path: &[u8]) -> &[u8] {
    Path::new(std::ffi::OsStr::from_bytes(path))
        .parent()
        .map_or(b"/", |parent| parent.as_os_str().as_bytes())
}
