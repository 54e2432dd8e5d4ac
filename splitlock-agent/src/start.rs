//! What stands between the command line and a working agent: the host is read, the programs are
//! loaded and attached, the sources opened.

use std::{future::Future, os::fd::OwnedFd};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use splitlock_common::{HookSet, ledger::SubjectKey};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::{
    agent::{self, End, Facts, Request, Sources, events::EventLines, helpers::Helpers, mode},
    cli::counting::{CountingOptions, HookOptions},
    detection::{Monitor, evidence::Evidence},
    host::{self, Host, privileges, symbols, tracefs, tracefs::Tracefs},
    intake::{
        kernel_log::{Batch, KernelLog},
        ledgers::Ledgers,
        records::Records,
    },
    logging::{self, DebugLines},
    memory,
    probes::{
        Probe,
        attach::{self, Sizes},
        catalogue,
        plan::{self, Plan},
        programs::Programs,
    },
    subjects::{death::Deaths, paths::Paths, uevents::VmEvents},
    table::{Limits, Table},
};

/// Entries of the trap ledger beyond those with series: subjects past the limits, and the dead
/// until they are freed.
const SPARE_ENTRIES: u32 = 8192;

/// Descriptors for everything but the watching of subjects: programs, maps, connections.
const RESERVED_DESCRIPTORS: u64 = 256;

/// Bytes of the ring buffer: about 1,600 records of processes.
const RECORD_BYTES: u32 = 512 * 1024;

/// What the agent stands on.
pub struct Ground {
    /// The host.
    pub host: Host,
    /// How tracefs came to be there.
    pub tracefs: Tracefs,
    /// How many descriptors there may be; `None` for no limit.
    pub descriptors: Option<u64>,
}

impl Ground {
    /// Looks at the host. To be called before there are other threads, which would not have the
    /// mount namespace that this may make.
    pub fn look() -> Self {
        let descriptors = raise_descriptor_limit();
        let tracefs = tracefs::provide();
        Self {
            host: Host::read(&tracefs, &catalogue::TRACEPOINTS),
            tracefs,
            descriptors,
        }
    }

    /// Looks at the host, if the agent can work there, and at what this process may do. To be called
    /// as [`Self::look`].
    ///
    /// # Errors
    /// What is missing on this machine, with what to do about it.
    pub fn find(options: &CountingOptions) -> Result<Self> {
        if let Some(missing) = privileges::missing() {
            bail!("{missing}");
        }
        if let Err(reason) = options.paths.paths().check() {
            bail!("{reason}");
        }
        for lacking in privileges::lacking() {
            warn!("{lacking}");
        }
        let ground = Self::look();
        match &ground.tracefs {
            Tracefs::Found(_) => {}
            Tracefs::Private(path) => info!(
                path = %path.display(),
                "tracefs is not mounted here; mounted it in a mount namespace of the agent's own"
            ),
            Tracefs::Missing(reason) => warn!(reason, "going on without tracefs"),
        }
        if let Err(reason) = &ground.host.layout {
            bail!("the layout of the kernel's structures is not known: {reason}");
        }
        Ok(ground)
    }
}

/// An agent whose programs are attached, and which counts.
pub struct Attached {
    sources: Sources,
    table: Table,
    facts: Facts,
    monitor: Monitor,
    debug_lines: Option<DebugLines>,
    /// The kernel counts the programs' runs as long as this is open.
    _statistics: Option<OwnedFd>,
}

impl Attached {
    /// Loads and attaches the programs, and opens all that takes rights to open: with one thread, and
    /// before there is a runtime.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach(options: &CountingOptions, ground: &Ground, debug_lines: bool) -> Result<Self> {
        let Ground {
            host,
            tracefs: _,
            descriptors,
        } = ground;
        let CountingOptions {
            hooks,
            limits,
            paths,
        } = options;
        let wants_statistics = hooks.probe_statistics || hooks.max_overhead.is_some();
        let statistics = wants_statistics.then(statistics).flatten();
        if statistics.is_none() && hooks.max_overhead.is_some() {
            bail!("--max-overhead: what the programs cost cannot be known here");
        }
        let paths = paths.paths();
        let opened = KernelLog::open(&paths.rootfs);
        let log_state = match &opened {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("/dev/kmsg: {error}")),
        };
        let plan = plan(host, hooks);
        let sizes = sizes(options);
        let mut ebpf = attach::load(&plan, sizes, debug_lines)?;
        let debug_lines = debug_lines
            .then(|| logging::debug_lines(&mut ebpf))
            .flatten();
        let ledgers = Ledgers::take(&mut ebpf, sizes.exit_rows)?;
        let records = Records::take(&mut ebpf)?;
        let probes = attach::attach(&mut ebpf, plan, &log_state)?;

        let (kernel_log, history) = opened.ok().unzip();
        let monitor = monitor(host, history.as_ref(), &probes);
        let watched = watched(*descriptors);
        if watched < (limits.processes + limits.vms) as usize {
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
            symbols: symbols::open()
                .inspect_err(|error| debug!(%error, "/proc/kallsyms"))
                .ok(),
        };
        let table = Table::new(Limits {
            processes: limits.processes as usize,
            vms: limits.vms as usize,
            workloads: limits.workloads as usize,
            retention: limits.retention,
        });
        // Reading BTF and the object took many times what is needed from here on.
        memory::give_back();
        let facts = Facts {
            probe_statistics: statistics.is_some(),
            lacks_kvm: !paths.sysfs.join("devices/virtual/misc/kvm").exists(),
            max_overhead: hooks.max_overhead,
            ..facts(host, sizes, &probes, paths)
        };
        Ok(Self {
            sources,
            table,
            facts,
            monitor,
            debug_lines,
            _statistics: statistics,
        })
    }

    /// Lets go again, after a reading of the mode of detection from the kernel's memory where that can
    /// be had: gives how the hooks were attached, and what the host notices with them.
    pub async fn examine(self) -> (Vec<Probe>, Monitor) {
        let Self {
            mut sources,
            mut monitor,
            facts,
            ..
        } = self;
        let address = mode::look_up(sources.symbols.take()).await.ok();
        if let Some(mode) = address.and_then(|address| sources.programs.read_word(address)) {
            monitor.read_memory(mode);
        }
        (facts.probes, monitor)
    }

    /// Whether the ledgers can be read.
    pub fn reads_maps(&self) -> bool {
        let nobody = SubjectKey {
            tgid: 0,
            start_ns: 0,
            reserved: 0,
        };
        self.sources.ledgers.trap(nobody).is_ok()
    }

    /// Works until nobody can ask any more, in a runtime. The programs and maps end with it.
    pub fn run(
        self,
        requests: mpsc::Receiver<Request>,
        event_lines: Option<EventLines>,
        helpers: Helpers,
    ) -> impl Future<Output = End> {
        let Self {
            sources,
            table,
            facts,
            monitor,
            debug_lines,
            _statistics,
        } = self;
        async move {
            let _statistics = _statistics;
            if let Some(lines) = debug_lines {
                lines();
            }
            agent::run(
                sources,
                table,
                facts,
                monitor,
                event_lines,
                helpers,
                requests,
            )
            .await
        }
    }
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

/// How many subjects can be watched with so many descriptors.
pub fn watched(descriptors: Option<u64>) -> usize {
    descriptors.map_or(usize::MAX, |limit| {
        usize::try_from(limit.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX)
    })
}

/// The plan for a host, as far as the flags leave it.
pub fn plan(host: &Host, hooks: &HookOptions) -> Plan {
    let mut plan = plan::plan(host);
    plan.restrict(&hooks.probes);
    plan.count_exits(hooks.kvm_exits);
    plan
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

fn sizes(options: &CountingOptions) -> Sizes {
    Sizes {
        trap_entries: options.limits.processes + options.limits.vms + SPARE_ENTRIES,
        // A row is found by the lower bits of a thread's number.
        exit_rows: options.limits.vcpus.next_power_of_two(),
        record_bytes: RECORD_BYTES,
        records_per_second: options.limits.records,
    }
}

/// The hooks that are attached.
pub fn attached(probes: &[Probe]) -> HookSet {
    probes
        .iter()
        .filter(|probe| probe.via.is_some())
        .fold(HookSet::empty(), |set, probe| set.with(probe.hook))
}

/// What is known of detection at the start, with these hooks.
pub fn monitor(host: &Host, history: Option<&Batch>, probes: &[Probe]) -> Monitor {
    let evidence = Evidence {
        cpu: host.cpu,
        parameter: host.parameter.clone(),
        message: history.and_then(|history| history.setup),
        memory: None,
        arming_is_doubtful: host.arming_is_doubtful,
    };
    Monitor::new(evidence, host::mitigation(), attached(probes))
}

fn facts(host: &Host, sizes: Sizes, probes: &[Probe], paths: Paths) -> Facts {
    Facts {
        kernel: host.kernel_release.clone(),
        cpu: host.cpu,
        kernel_version: host.kernel_version(),
        trap_entries: sizes.trap_entries as usize,
        exit_rows: sizes.exit_rows as usize,
        reachable_rows: (sizes.exit_rows as usize).min(pid_max().unwrap_or(usize::MAX)),
        general_registers: host
            .layout
            .as_ref()
            .ok()
            .and_then(|layout| layout.general_registers),
        record_bytes: sizes.record_bytes.into(),
        probe_statistics: false,
        lacks_kvm: false,
        max_overhead: None,
        probes: probes.to_vec(),
        paths,
    }
}

/// `kernel.pid_max`.
fn pid_max() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?;
    text.trim().parse().ok()
}
