//! The command line. Flags are named like those of the Prometheus exporters.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::probes::choice::{Choice, KvmExits};

/// Split locks and bus locks per process and per VM, as Prometheus metrics.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: attach to the kernel, count, and serve metrics until SIGINT or SIGTERM.
    Run(RunOptions),
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Address and port to serve on; without an address, on all.
    #[arg(
        long = "web.listen-address",
        value_name = "[ADDRESS]:PORT",
        default_value = "127.0.0.1:9839",
        value_parser = listen_address
    )]
    pub listen_address: SocketAddr,

    /// Path of the metrics.
    #[arg(
        long = "web.telemetry-path",
        value_name = "PATH",
        default_value = "/metrics",
        value_parser = telemetry_path
    )]
    pub telemetry_path: String,

    /// Least severe log lines to print; `debug` also turns on the lines of the BPF programs.
    #[arg(
        long = "log.level",
        value_name = "LEVEL",
        value_enum,
        default_value_t = LogLevel::Info
    )]
    pub log_level: LogLevel,

    /// Form of the log lines, on standard error.
    #[arg(
        long = "log.format",
        value_name = "FORMAT",
        value_enum,
        default_value_t = LogFormat::Text
    )]
    pub log_format: LogFormat,

    /// Processes with series of their own; the locks of others are in the overflow family.
    #[arg(
        long = "limit.processes",
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub limit_processes: u32,

    /// VMs with series of their own; the locks of others are in the overflow family.
    #[arg(
        long = "limit.vms",
        value_name = "N",
        default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(0..=100_000)
    )]
    pub limit_vms: u32,

    /// Workloads, that is processes of one name in one unit, with series of their own.
    #[arg(
        long = "limit.workloads",
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub limit_workloads: u32,

    /// vCPU threads whose exits are counted at a time, rounded up to a power of two. Each takes
    /// 2,376 bytes of kernel memory. When nine tenths are taken, some threads may find no room.
    #[arg(
        long = "limit.vcpus",
        value_name = "N",
        default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub limit_vcpus: u32,

    /// Detail records that one process or VM may write per second. Counts do not depend on it.
    #[arg(
        long = "limit.records-per-second",
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub limit_records: u32,

    /// Attach a hook in one way only, or not at all (`none`), such as `kvm_exit=none`; may be given
    /// several times. The names are those of `splitlock_probe_attached`.
    #[arg(long = "probe", value_name = "NAME=VIA")]
    pub probes: Vec<Choice>,

    /// Where the host's /proc is mounted, that of the initial pid namespace.
    #[arg(long = "path.procfs", value_name = "FOLDER", default_value = "/proc")]
    pub procfs: PathBuf,

    /// Where the host's /sys is mounted.
    #[arg(long = "path.sysfs", value_name = "FOLDER", default_value = "/sys")]
    pub sysfs: PathBuf,

    /// Where the host's / is mounted.
    #[arg(long = "path.rootfs", value_name = "FOLDER", default_value = "/")]
    pub rootfs: PathBuf,

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

    /// How long the series of an ended process or VM stay, such as `15m`, `90s`, `1h`.
    #[arg(
        long = "retention",
        value_name = "DURATION",
        default_value = "15m",
        value_parser = duration
    )]
    pub retention: Duration,
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Also what is only of use when something is wrong with the agent.
    Debug,
    /// Also what the agent does.
    Info,
    /// What does not work as it should.
    Warn,
    /// What ends the agent.
    Error,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Paths that the server uses for something else.
const TAKEN: [&str; 4] = ["/", "/healthz", "/readyz", "/api/v1/snapshot"];

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => text.to_owned(),
    };
    whole
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .next()
        .ok_or_else(|| "the name has no address".to_owned())
}

fn telemetry_path(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if !text.starts_with('/') || !text.chars().all(allowed) {
        return Err("begins with / and has letters, digits and /-._~ only".to_owned());
    }
    if TAKEN.contains(&text) {
        return Err("that path is the server's for something else".to_owned());
    }
    Ok(text.to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let units = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    units
        .iter()
        .find_map(|(unit, factor)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(*factor).map(Duration::from_millis)
        })
        .ok_or_else(|| "a whole number and one of ms, s, m, h, d, such as 15m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn listen_addresses() {
        let read = |text| listen_address(text).map(|address| address.to_string());
        assert_eq!(read("127.0.0.1:9839").as_deref(), Ok("127.0.0.1:9839"));
        assert_eq!(read("[::1]:0").as_deref(), Ok("[::1]:0"));
        assert_eq!(read(":9839").as_deref(), Ok("[::]:9839"));
        assert!(read("localhost:9839").is_ok());
        for text in ["", "localhost", "127.0.0.1", ":x", "127.0.0.1:70000"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for text in [
            "",
            "s",
            "15",
            "-1s",
            "1.5h",
            "1y",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn telemetry_paths() {
        assert_eq!(telemetry_path("/m/x-1"), Ok("/m/x-1".to_owned()));
        for text in ["", "metrics", "/", "/healthz", "/{x}", "/a b", "/ä"] {
            assert!(telemetry_path(text).is_err(), "{text}");
        }
    }
}
