//! Flags of what is counted: which hooks, within which limits, on which host.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::values;
use crate::{
    probes::{
        choice::{Choice, KvmExits},
        overhead::Percent,
    },
    subjects::paths::Paths,
};

/// What is counted, and within which limits.
#[derive(Clone, Debug, Args)]
pub struct CountingOptions {
    /// How it is attached.
    #[command(flatten)]
    pub hooks: HookOptions,

    /// Limits.
    #[command(flatten)]
    pub limits: LimitOptions,

    /// Where the host is.
    #[command(flatten)]
    pub paths: PathOptions,
}

/// How the agent attaches.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Hooks")]
pub struct HookOptions {
    /// Attach a hook in one way only, or not at all (`none`), such as `kvm_exit=none`; may be given
    /// several times, or with commas between the values. The names are those of `splitlock_probe_attached`.
    #[arg(long = "probe", value_name = "NAME=VIA", value_delimiter = ',')]
    pub probes: Vec<Choice>,

    /// Which exits of guests to count. `locks` counts no exits but as bus locks of a guest, and
    /// `off` attaches nothing to exits, so that guests' bus locks are not seen.
    #[arg(
        long = "kvm-exits",
        value_name = "WHICH",
        value_enum,
        default_value_t = KvmExits::All
    )]
    pub kvm_exits: KvmExits,

    /// Have the kernel count the runs of the BPF programs, and the time in them, for
    /// `splitlock_probe_runs_total` and `splitlock_probe_run_seconds_total`. It does so for all
    /// programs of the host, and each run then costs some 30 ns more.
    #[arg(long = "probe-statistics")]
    pub probe_statistics: bool,

    /// What the BPF programs may cost together, in percent of one CPU, on the average of 5 s. Where
    /// they cost more, the hook that cost most is taken off until the agent is started anew, with a
    /// line in the log and in `splitlock_probe_detached`. Turns the statistics of
    /// `--probe-statistics` on, and ends the agent where the kernel does not allow them.
    #[arg(long = "max-overhead", value_name = "PERCENT")]
    pub max_overhead: Option<Percent>,
}

/// How much there may be of everything.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Processes with series of their own; the locks of others are in the overflow family.
    #[arg(
        long = "limit.processes",
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub processes: u32,

    /// VMs with series of their own; the locks of others are in the overflow family.
    #[arg(
        long = "limit.vms",
        value_name = "N",
        default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(0..=100_000)
    )]
    pub vms: u32,

    /// Workloads, that is processes of one name in one unit, with series of their own.
    #[arg(
        long = "limit.workloads",
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub workloads: u32,

    /// vCPU threads whose exits are counted at a time, rounded up to a power of two. Each takes
    /// 2,376 bytes of kernel memory. When nine tenths are taken, some threads may find no room.
    #[arg(
        long = "limit.vcpus",
        value_name = "N",
        default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub vcpus: u32,

    /// Detail records that one process or VM may write per second. Counts do not depend on it.
    #[arg(
        long = "limit.records-per-second",
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub records: u32,

    /// How long the series of an ended process or VM stay, such as `15m`, `90s`, `1h`.
    #[arg(
        long = "retention",
        value_name = "DURATION",
        default_value = "15m",
        value_parser = values::duration
    )]
    pub retention: Duration,
}

/// Where the host's file systems are mounted.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Host")]
pub struct PathOptions {
    /// Where the host's /proc is mounted, that of the initial pid namespace.
    #[arg(long = "path.procfs", value_name = "FOLDER", default_value = "/proc")]
    pub procfs: PathBuf,

    /// Where the host's /sys is mounted.
    #[arg(long = "path.sysfs", value_name = "FOLDER", default_value = "/sys")]
    pub sysfs: PathBuf,

    /// Where the host's / is mounted.
    #[arg(long = "path.rootfs", value_name = "FOLDER", default_value = "/")]
    pub rootfs: PathBuf,
}

impl PathOptions {
    /// For those who read there.
    pub fn paths(&self) -> Paths {
        let Self {
            procfs,
            sysfs,
            rootfs,
        } = self.clone();
        Paths {
            procfs,
            sysfs,
            rootfs,
        }
    }
}
