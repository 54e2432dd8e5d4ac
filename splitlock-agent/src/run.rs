//! The daemon: from the command line to the end of the last connection.

use std::{io::IsTerminal as _, os::fd::OwnedFd, pin::pin};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use splitlock_common::HookSet;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};
use tracing::{debug, info, level_filters::LevelFilter, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    agent::{self, Facts, Sources},
    cli::{LogFormat, LogLevel, RunOptions},
    detection::{Monitor, evidence::Evidence},
    export::server::Server,
    host::{self, Host, privileges, symbols, tracefs, tracefs::Tracefs},
    intake::{
        kernel_log::{Batch, KernelLog},
        ledgers::Ledgers,
        records::Records,
    },
    memory,
    probes::{
        Probe,
        attach::{self, Sizes},
        catalogue, plan,
        programs::Programs,
    },
    readiness::readable,
    subjects::{death::Deaths, paths::Paths, uevents::VmEvents},
    table::{Limits, Table},
};

/// Entries of the trap ledger beyond those with series: subjects past the limits, and the dead
/// until they are freed.
const SPARE_ENTRIES: u32 = 8192;

/// Descriptors for everything but the watching of subjects: programs, maps, connections.
const RESERVED_DESCRIPTORS: u64 = 256;

/// Bytes of the ring buffer: about 2,700 records.
const RECORD_BYTES: u32 = 256 * 1024;

/// Runs the agent until SIGINT or SIGTERM.
///
/// # Errors
/// What is missing on this machine, with what to do about it.
pub fn run(options: &RunOptions) -> Result<()> {
    memory::keep_one_heap();
    start_logging(options);
    if let Some(missing) = privileges::missing() {
        bail!("{missing}");
    }
    if let Err(reason) = paths(options).check() {
        bail!("{reason}");
    }
    for lacking in privileges::lacking() {
        warn!("{lacking}");
    }
    let descriptors = raise_descriptor_limit();
    // Before the runtime starts its threads, which inherit the mount namespace.
    let tracefs = tracefs::provide();
    match &tracefs {
        Tracefs::Found(_) => {}
        Tracefs::Private(path) => info!(
            path = %path.display(),
            "tracefs is not mounted here; mounted it in a mount namespace of the agent's own"
        ),
        Tracefs::Missing(reason) => warn!(reason, "going on without tracefs"),
    }
    let host = Host::read(&tracefs, &catalogue::TRACEPOINTS);
    if let Err(reason) = &host.layout {
        bail!("the layout of the kernel's structures is not known: {reason}");
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(serve(options, &host, descriptors))
}

/// Gives the limit, `None` for none. Each subject takes a descriptor, for its pidfd; the usual soft limit of 1,024 is for programs
/// that use `select`.
fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        debug!(%error, "the limit of descriptors stays");
        return limit.current;
    }
    limit.maximum
}

async fn serve(options: &RunOptions, host: &Host, descriptors: Option<u64>) -> Result<()> {
    // Before the hooks: a signal during the attaching must also end the agent.
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;

    let (requests, questions) = mpsc::channel(16);
    // Before the hooks as well: a second agent fails here and counts nothing.
    let server = Server::bind(options.listen_address, &options.telemetry_path, requests)
        .with_context(|| format!("listening on {}", options.listen_address))?;

    let statistics = options.probe_statistics.then(statistics).flatten();
    let paths = paths(options);
    let opened = KernelLog::open(&paths.rootfs);
    let log_state = match &opened {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("/dev/kmsg: {error}")),
    };
    let mut plan = plan::plan(host);
    plan.restrict(&options.probes);
    plan.count_exits(options.kvm_exits);
    let sizes = sizes(options);
    let mut ebpf = attach::load(&plan, sizes, options.log_level == LogLevel::Debug)?;
    forward_debug_lines(&mut ebpf, options.log_level);
    let ledgers = Ledgers::take(&mut ebpf, sizes.exit_rows)?;
    let records = Records::take(&mut ebpf)?;
    let probes = attach::attach(&mut ebpf, plan, &log_state)?;

    let (kernel_log, history) = opened.ok().unzip();
    let monitor = monitor(host, history.as_ref(), &probes);
    let watched = descriptors.map_or(usize::MAX, |limit| {
        usize::try_from(limit.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX)
    });
    if watched < (options.limit_processes + options.limit_vms) as usize {
        warn!(
            "the limit of file descriptors leaves {watched} for subjects that live at a time, one each; \
             raise LimitNOFILE"
        );
    }
    let sources = Sources {
        deaths: Deaths::new(watched).context("waiting for processes to end")?,
        programs: Programs::new(ebpf, &probes)?,
        ledgers,
        records,
        kernel_log,
        log_history: history.map(|history| history.reports),
        vm_events: VmEvents::open()
            .inspect_err(|error| warn!(%error, "no uevents of KVM; VMs are found as they run"))
            .ok(),
        mode_address: look_up_mode(),
    };
    let table = Table::new(Limits {
        processes: options.limit_processes as usize,
        vms: options.limit_vms as usize,
        workloads: options.limit_workloads as usize,
        retention: options.retention,
    });
    let address = server.address().context("the listener's address")?;
    // Reading BTF and the object took many times what is needed from here on.
    memory::give_back();
    info!("serving on http://{address}{}", options.telemetry_path);

    let facts = Facts {
        probe_statistics: statistics.is_some(),
        ..facts(host, sizes, &probes, paths)
    };
    let agent = pin!(agent::run(sources, table, facts, monitor, questions));
    // A task of its own: clients are served also while the agent reads.
    let mut serving = tokio::spawn(server.serve());
    select! {
        () = agent => {}
        ended = &mut serving => {
            let Err(error) = ended;
            return Err(error).context("the server ended");
        }
        _ = interrupt.recv() => info!("SIGINT: ending"),
        _ = terminate.recv() => info!("SIGTERM: ending"),
    }
    // Nobody is accepted any more, and no request waits for an agent that is gone.
    serving.abort();
    let _ = serving.await;
    // The programs and maps end with the agent, which owns them.
    Ok(())
}

/// Has the kernel count runs of BPF programs, as long as the descriptor is open.
fn statistics() -> Option<OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .inspect_err(|error| {
            warn!(
                %error,
                "the kernel counts no runs of the programs: it needs Linux 5.8 and CAP_SYS_ADMIN"
            );
        })
        .ok()
}

fn sizes(options: &RunOptions) -> Sizes {
    Sizes {
        trap_entries: options.limit_processes + options.limit_vms + SPARE_ENTRIES,
        // A row is found by the lower bits of a thread's number.
        exit_rows: options.limit_vcpus.next_power_of_two(),
        record_bytes: RECORD_BYTES,
        records_per_second: options.limit_records,
    }
}

/// The kernel's variable with the mode of detection, static in arch/x86/kernel/cpu/bus_lock.c
/// (before 6.14 intel.c).
const MODE_SYMBOL: &str = "sld_state";

/// Looks the variable up beside everything else, as the kernel takes its time to list its symbols.
fn look_up_mode() -> oneshot::Receiver<u64> {
    let (sender, address) = oneshot::channel();
    std::thread::spawn(move || match symbols::data_address(MODE_SYMBOL) {
        Ok(Some(found)) => {
            // The agent may have ended meanwhile.
            let _ = sender.send(found);
        }
        Ok(None) => debug!("the kernel does not tell where {MODE_SYMBOL} is"),
        Err(error) => debug!(%error, "/proc/kallsyms"),
    });
    address
}

fn attached(probes: &[Probe]) -> HookSet {
    probes
        .iter()
        .filter(|probe| probe.via.is_some())
        .fold(HookSet::empty(), |set, probe| set.with(probe.hook))
}

fn monitor(host: &Host, history: Option<&Batch>, probes: &[Probe]) -> Monitor {
    let evidence = Evidence {
        cpu: host.cpu,
        parameter: host.parameter.clone(),
        message: history.and_then(|history| history.setup),
        memory: None,
    };
    Monitor::new(evidence, host::mitigation(), attached(probes))
}

fn paths(options: &RunOptions) -> Paths {
    Paths {
        procfs: options.procfs.clone(),
        sysfs: options.sysfs.clone(),
        rootfs: options.rootfs.clone(),
    }
}

fn facts(host: &Host, sizes: Sizes, probes: &[Probe], paths: Paths) -> Facts {
    Facts {
        kernel: host.kernel_release.clone(),
        cpu: host.cpu,
        kernel_version: host.kernel_version(),
        trap_entries: sizes.trap_entries as usize,
        exit_rows: sizes.exit_rows as usize,
        reachable_rows: (sizes.exit_rows as usize).min(pid_max().unwrap_or(usize::MAX)),
        record_bytes: sizes.record_bytes.into(),
        probe_statistics: false,
        probes: probes.to_vec(),
        paths,
    }
}

/// `kernel.pid_max`.
fn pid_max() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?;
    text.trim().parse().ok()
}

/// Prints the debug lines of the BPF programs, which are off otherwise.
fn forward_debug_lines(ebpf: &mut Ebpf, level: LogLevel) {
    if level != LogLevel::Debug {
        return;
    }
    let logger = match aya_log::EbpfLogger::init(ebpf) {
        Ok(logger) => readable(logger),
        Err(error) => {
            warn!(%error, "no debug lines from the BPF programs");
            return;
        }
    };
    match logger {
        Ok(mut logger) => {
            tokio::spawn(async move {
                while let Ok(mut ready) = logger.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            });
        }
        Err(error) => warn!(%error, "no debug lines from the BPF programs"),
    }
}

fn start_logging(options: &RunOptions) {
    let level = match options.log_level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // The lines of the agent and, by aya-log, of its BPF programs; libraries have details of their
    // own at the debug level.
    let filter = EnvFilter::new(format!(
        "splitlock_agent={level},splitlock_ebpf={level},{}",
        level.min(LevelFilter::INFO)
    ));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process, as a test may do, keeps the first's form.
    let _ = match options.log_format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
