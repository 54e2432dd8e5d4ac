//! `/proc` of one process: what it says of itself, read within bounds.
//!
//! A process can vanish between two reads, and its pid can be another's at the next: who joins
//! several facts compares the start time before and after.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use rustix::fs::OFlags;

use super::paths::Paths;

/// Bytes read of a command line. The kernel takes arguments of up to 6 MiB in all (`bprm_stack_limits`,
/// `fs/exec.c`, 4.13+); libvirt's QEMU command lines have some ten KiB, names near the start.
pub const COMMAND_LINE_LIMIT: usize = 64 << 10;
/// Threads that are looked at for one that is not exiting.
const THREADS: usize = 1024;
/// Bytes read of any other file: each is below two pages but for a cgroup of very long names.
const FILE_LIMIT: usize = 16 << 10;

/// Start time of a process in ticks since boot.
///
/// # Errors
/// The process is gone, or its `stat` cannot be read or understood.
pub fn start_ticks(paths: &Paths, pid: u32) -> io::Result<u64> {
    let stat = read(&paths.process(pid, "stat"), FILE_LIMIT)?;
    parse_start_ticks(&stat).ok_or_else(|| malformed("stat without a start time"))
}

/// The process that a process is a child of; 0 for the first one and the kernel's threads.
///
/// # Errors
/// The process is gone, or its `stat` cannot be read or understood.
pub fn parent(paths: &Paths, pid: u32) -> io::Result<u32> {
    let stat = read(&paths.process(pid, "stat"), FILE_LIMIT)?;
    let parent = stat_field(&stat, 4).and_then(|field| field.parse().ok());
    parent.ok_or_else(|| malformed("stat without a parent"))
}

/// Whether a thread is exiting or a zombie: `/proc` tells little of it then, and its cgroup in a v1
/// hierarchy is the root (`cgroup_exit`; PF_EXITING is 4, include/linux/sched.h).
///
/// # Errors
/// The thread is gone, or its `stat` cannot be read or understood.
pub fn is_exiting(paths: &Paths, tid: u32) -> io::Result<bool> {
    let stat = read(&paths.process(tid, "stat"), FILE_LIMIT)?;
    let state = stat_field(&stat, 3).ok_or_else(|| malformed("stat without a state"))?;
    let flags: Option<u64> = stat_field(&stat, 9).and_then(|field| field.parse().ok());
    let flags = flags.ok_or_else(|| malformed("stat without flags"))?;
    Ok(matches!(state, "Z" | "X" | "x") || flags & 4 != 0)
}

/// A thread of a process that is not exiting: the first one, unless it has ended before the others.
pub fn living_thread(paths: &Paths, pid: u32) -> Option<u32> {
    let lives = |tid: &u32| is_exiting(paths, *tid).is_ok_and(|exiting| !exiting);
    if lives(&pid) {
        return Some(pid);
    }
    fs::read_dir(paths.process(pid, "task"))
        .ok()?
        .take(THREADS)
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(lives)
}

/// Whether all threads of a process are exiting, as far as `/proc` tells: it runs nothing any more,
/// but letting go of what it had may take a while.
pub fn all_exit(paths: &Paths, pid: u32) -> bool {
    let exits = |tid: u32| is_exiting(paths, tid).is_ok_and(|exiting| exiting);
    let Ok(threads) = fs::read_dir(paths.process(pid, "task")) else {
        return false;
    };
    let others: Option<Vec<u32>> = threads
        .take(THREADS)
        .map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    exits(pid)
        && others.is_some_and(|others| others.len() < THREADS && others.into_iter().all(exits))
}

/// Whether a process has this thread, as far as `/proc` tells.
pub fn has_thread(paths: &Paths, pid: u32, tid: u32) -> bool {
    fs::exists(paths.process(pid, &format!("task/{tid}"))).unwrap_or(true)
}

/// The thread group that a thread belongs to.
///
/// # Errors
/// The thread is gone, or its `status` cannot be read or understood.
pub fn thread_group(paths: &Paths, tid: u32) -> io::Result<u32> {
    let status = read(&paths.process(tid, "status"), FILE_LIMIT)?;
    parse_thread_group(&status).ok_or_else(|| malformed("status without a Tgid"))
}

/// Name of a process's first thread, or of any thread by its tid: at most 15 bytes.
///
/// # Errors
/// The process is gone, or the file cannot be read.
pub fn comm(paths: &Paths, pid: u32) -> io::Result<Vec<u8>> {
    let mut comm = read(&paths.process(pid, "comm"), FILE_LIMIT)?;
    // The kernel adds one newline (`comm_show`, fs/proc/base.c); any other is part of the name.
    if comm.last() == Some(&b'\n') {
        comm.pop();
    }
    Ok(comm)
}

/// Arguments of a process, as they are in its memory now: at most [`COMMAND_LINE_LIMIT`] bytes, the
/// last argument cut there. Empty for kernel threads and zombies.
///
/// # Errors
/// The process is gone, or the file cannot be read.
pub fn command_line(paths: &Paths, pid: u32) -> io::Result<Vec<u8>> {
    read(&paths.process(pid, "cmdline"), COMMAND_LINE_LIMIT)
}

/// The file that a process runs, as its own mount namespace names it.
///
/// # Errors
/// The process is gone (ENOENT, ESRCH), has no file (a kernel thread or a zombie: ENOENT), or is
/// out of reach.
pub fn exe(paths: &Paths, pid: u32) -> io::Result<Vec<u8>> {
    let link = paths.process(pid, "exe");
    let mut name = fs::read_link(&link)?.into_os_string().into_vec();
    // `d_path` (fs/d_path.c) adds this to the name of a removed file, and a file can be named so
    // itself. Only of a removed one the inode has no link left.
    if let Some(kept) = name.strip_suffix(b" (deleted)") {
        let removed = fs::metadata(&link).map_or(true, |file| file.nlink() == 0);
        if removed {
            name.truncate(kept.len());
        }
    }
    Ok(name)
}

/// The cgroups of a process: a line for each hierarchy.
///
/// # Errors
/// The process is gone, or the file cannot be read.
pub fn cgroups(paths: &Paths, pid: u32) -> io::Result<Vec<u8>> {
    read(&paths.process(pid, "cgroup"), FILE_LIMIT)
}

/// At most `limit` bytes of a file, without waiting for a writer if it is none.
fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let mut text = Vec::new();
    file.take(limit as u64).read_to_end(&mut text)?;
    Ok(text)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Field 22 of `stat`.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)?.parse().ok()
}

/// A field of `stat` behind the second, counted from 1. The comm in field 2 may hold anything, also
/// `)` and spaces; the last `)` ends it.
fn stat_field(stat: &[u8], number: usize) -> Option<&str> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// The kernel escapes newlines in the name on the first line, so a line is a field.
fn parse_thread_group(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Tgid:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comm_cannot_shift_the_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for comm in ["bash", "a) S 1 2", "))) ", "\n"] {
            let stat = format!("42 ({comm}) {rest}");
            assert_eq!(parse_start_ticks(stat.as_bytes()), Some(4711), "{comm:?}");
            assert_eq!(stat_field(stat.as_bytes(), 4), Some("1"), "{comm:?}");
        }
        assert_eq!(parse_start_ticks(b""), None);
        assert_eq!(parse_start_ticks(b"42 (bash) S 1"), None);
    }

    #[test]
    fn the_thread_group_is_a_line_of_its_own() {
        let status = b"Name:\tTgid:\\n9\nUmask:\t0022\nTgid:\t77\nPid:\t78\n";
        assert_eq!(parse_thread_group(status), Some(77));
        assert_eq!(parse_thread_group(b"Name:\tx\n"), None);
    }

    #[test]
    fn fuzz_stat_and_status() {
        bolero::check!(name = "stat_and_status").for_each(|text: &[u8]| {
            let _ = (parse_start_ticks(text), parse_thread_group(text));
            // Whatever the comm is, the fields behind it stay.
            let mut stat = b"1 (".to_vec();
            stat.extend(text);
            stat.extend(b") S 77 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20\n");
            assert_eq!(stat_field(&stat, 4), Some("77"));
            assert_eq!(parse_start_ticks(&stat), Some(4711));
        });
    }

    #[test]
    fn this_process() {
        let paths = Paths::default();
        let pid = std::process::id();
        assert!(start_ticks(&paths, pid).unwrap() > 0);
        assert_eq!(thread_group(&paths, pid).unwrap(), pid);
        assert_eq!(
            parent(&paths, pid).unwrap(),
            std::os::unix::process::parent_id()
        );
        let own = std::env::current_exe().unwrap();
        assert_eq!(exe(&paths, pid).unwrap(), own.into_os_string().into_vec());
        assert!(!command_line(&paths, pid).unwrap().is_empty());
        assert_eq!(
            start_ticks(&paths, u32::MAX).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
