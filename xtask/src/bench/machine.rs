//! What was measured on.

use std::fs;

/// The CPU and the kernel.
pub fn this_machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("an unknown CPU");
    let release = read("/proc/sys/kernel/osrelease");
    let count = cpuinfo.matches("model name").count();
    // What follows the numbers tells whose build it is, not what it is.
    let kernel = release.split('-').next().unwrap_or_default().trim();
    format!("{count} CPUs ({cpu}), Linux {kernel}")
}
