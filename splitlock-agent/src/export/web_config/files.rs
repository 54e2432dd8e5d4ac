//! The files that a configuration was read from, and whether they have changed since.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

/// No certificate or list of users is longer.
const LARGEST: u64 = 1 << 20;

/// A file that was changed so recently may change once more without another time of change: the
/// kernel's is of the last tick (`ktime_get_coarse_real_ts64`), and some file systems keep seconds.
const FRESH: Duration = Duration::from_secs(2);

/// Files that were read, in their order.
#[derive(Default)]
pub struct Files {
    seen: Vec<(PathBuf, Option<Stamp>)>,
    /// Whether one of them may have changed unnoticed, or could not be read for now.
    doubtful: bool,
    content: Sha256,
}

/// What differs after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self::from(&found))
    }

    fn is_fresh(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let age = now.as_secs().cast_signed() - self.changed.0;
        (0..FRESH.as_secs().cast_signed()).contains(&age)
    }
}

impl From<&Metadata> for Stamp {
    fn from(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Files {
    /// Reads one, and notes it even where that fails.
    pub fn read(&mut self, path: &Path) -> Result<Vec<u8>> {
        // Before the reading: a change in the middle of it is seen as one.
        let stamp = Stamp::of(path);
        self.doubtful |= stamp.is_some_and(|stamp| stamp.is_fresh());
        self.seen.push((path.to_owned(), stamp));
        let read = read(path);
        if let Err(error) = &read {
            // As when no descriptor is free: the file is not to blame.
            self.doubtful |= error.downcast_ref::<io::Error>().is_some_and(is_passing);
        }
        let bytes = read.with_context(|| path.display().to_string())?;
        self.content.update(bytes.len().to_le_bytes());
        self.content.update(&bytes);
        Ok(bytes)
    }

    /// Whether another reading may give something else.
    pub fn may_have_changed(&self) -> bool {
        self.doubtful
            || self
                .seen
                .iter()
                .any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Tells what was read from what was read at another time.
    pub fn content(&self) -> [u8; 32] {
        self.content.clone().finalize().into()
    }

    /// Those that were read, or were to be.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.seen.iter().map(|(path, _)| path.as_path())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
    )
}

/// Opens a file that is to be read, without waiting where it is a pipe.
pub fn open(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = open(path)?;
    ensure!(file.metadata()?.is_file(), "it is no regular file");
    let mut bytes = vec![];
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= LARGEST,
        "it has more than {} KiB",
        LARGEST >> 10
    );
    Ok(bytes)
}
