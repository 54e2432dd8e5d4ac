//! What the kernel tells of loaded programs in `/proc/self/fdinfo`.

use std::{fs, io, os::fd::RawFd};

/// How often the kernel skipped a program, as it was running on that CPU already: in a task that
/// was preempted inside it, or further down on the same stack (`recursion_misses`, 5.12+; 0 on
/// older kernels, which do not tell).
///
/// # Errors
/// The file cannot be read.
pub fn missed(program: RawFd) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{program}"))?;
    Ok(parse_missed(&text))
}

fn parse_missed(fdinfo: &str) -> u64 {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_found_or_0() {
        let fdinfo = "pos:\t0\nprog_type:\t17\nrun_cnt:\t0\nrecursion_misses:\t42\n";
        assert_eq!(parse_missed(fdinfo), 42);
        assert_eq!(parse_missed("pos:\t0\n"), 0);
        assert!(missed(-1).is_err());
    }
}
