//! `/proc` of one process: its start time, its thread group.

use std::{fs, io};

/// Start time of a process in ticks since boot.
///
/// # Errors
/// The process is gone, or its `stat` cannot be read or understood.
pub fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    parse_start_ticks(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat without a start time"))
}

/// Field 22 of `stat`. The comm in field 2 may hold anything, also `)` and spaces; the last `)`
/// ends it.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// Whether a process has this thread, as far as `/proc` tells.
pub fn has_thread(pid: u32, tid: u32) -> bool {
    fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(true)
}

/// The thread group that a thread belongs to.
///
/// # Errors
/// The thread is gone, or its `status` cannot be read or understood.
pub fn thread_group(tid: u32) -> io::Result<u32> {
    let status = fs::read(format!("/proc/{tid}/status"))?;
    parse_thread_group(&status)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "status without a Tgid"))
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
    fn this_process() {
        let pid = std::process::id();
        assert!(start_ticks(pid).unwrap() > 0);
        assert_eq!(thread_group(pid).unwrap(), pid);
        assert_eq!(
            start_ticks(u32::MAX).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
