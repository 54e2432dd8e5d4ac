//! Two hours of a small fleet, as its agents would have shown them: snapshots for the agent's own
//! exposition.

use std::{collections::BTreeMap, sync::Arc};

use splitlock_agent::{
    subjects::{
        SubjectId,
        vmm::{Evidence, Vmm},
    },
    table::snapshot::{
        Fullness, HostFacts, Owner, PrivilegeFacts, ProbeRow, ProbeRuns, ProcessRow, RecordRing,
        SCHEMA, Snapshot, TrapCount, VmRow, WorkloadRow,
    },
};
use splitlock_common::{Event, Loss};

/// When it begins: midnight of the first of January 2026, UTC.
pub const BEGIN: u64 = 1_767_225_600;
/// How long it goes on, in seconds.
pub const LENGTH: u64 = 7200;
/// When the VM `web1` migrates, in seconds after the begin.
pub const MIGRATION: u64 = 5400;
/// When the agent of `hv4` ends.
const HV4_ENDS: u64 = 6600;
/// When the VM `once` traps, the only time.
const ONCE: u64 = 6000;
/// The VM that migrates.
pub const WEB1: &str = "7f9c24e8-0000-4000-8000-00000000001a";
/// The job of a fleet where much happens.
pub const BUSY: &str = "busy";
/// The job of one host in order, where nothing happens.
pub const QUIET: &str = "quiet";

/// The job of agents that were not always scraped.
pub const GAPS: &str = "gaps";
/// When the agent `late` starts; it is scraped somewhat later.
const LATE_STARTS: u64 = 4700;

/// A day before the begin.
const LONG_AGO: i64 = -86_400;

/// One agent.
pub struct Agent {
    /// Its scrape job.
    pub job: &'static str,
    /// Its address.
    pub instance: &'static str,
    /// When its process started, in seconds after the begin.
    pub started: i64,
    /// What it shows so many seconds after the begin; `None` while it is not scraped.
    pub at: fn(u64) -> Option<Snapshot>,
}

/// All of them.
pub const AGENTS: &[Agent] = &[
    Agent {
        job: BUSY,
        instance: "hv1:9839",
        started: LONG_AGO,
        at: |time| Some(hv1(time)),
    },
    Agent {
        job: BUSY,
        instance: "hv2:9839",
        started: LONG_AGO,
        at: |time| Some(hv2(time)),
    },
    Agent {
        job: BUSY,
        instance: "hv3:9839",
        started: LONG_AGO,
        at: |time| Some(hv3(time)),
    },
    Agent {
        job: BUSY,
        instance: "hv4:9839",
        started: LONG_AGO,
        at: |time| (time < HV4_ENDS).then(|| host("warn", &[("user", true), ("guest", true)])),
    },
    Agent {
        job: BUSY,
        instance: "hv5:9839",
        started: LONG_AGO,
        at: |_| Some(host("unknown", &[])),
    },
    Agent {
        job: QUIET,
        instance: "calm:9839",
        started: LONG_AGO,
        at: |_| Some(calm()),
    },
    Agent {
        job: GAPS,
        instance: "steady:9839",
        started: LONG_AGO,
        at: |time| Some(steady(time)),
    },
    Agent {
        job: GAPS,
        instance: "gap:9839",
        started: LONG_AGO,
        at: |time| (!(3000..4000).contains(&time)).then(|| with_traps("old", 500)),
    },
    Agent {
        job: GAPS,
        instance: "late:9839",
        started: LATE_STARTS as i64,
        at: |time| (time >= LATE_STARTS + 100).then(|| with_traps("early", 7)),
    },
];

/// Warn mode: a guest that is delayed until it migrates, one that traps once, a service that traps.
fn hv1(time: u64) -> Snapshot {
    let mut snapshot = host("warn", &[("user", true), ("guest", true)]);
    let warned = time.min(MIGRATION) * 2;
    let mut web1 = vm("web1", WEB1, 100);
    web1.traps = vec![count(Event::GuestSplitLockWarned, warned)];
    web1.delay_ns = warned * 10_000_000;
    web1.last_trap = Some((BEGIN + time.min(MIGRATION)) as f64);
    web1.exits = BTreeMap::from([("hlt", warned * 50), ("cpuid", warned), ("io", warned * 3)]);
    web1.userspace_exits = BTreeMap::from([("io", warned * 3), ("restart", warned)]);
    web1.ac_injected = warned / 2;
    // Fifteen minutes after it left it is gone here.
    if time < MIGRATION + 900 {
        snapshot.vms.push(web1);
    }
    let mut once = vm("once", "300-1", 300);
    if time >= ONCE {
        once.traps = vec![count(Event::GuestSplitLockWarned, 1)];
        once.last_trap = Some((BEGIN + ONCE) as f64);
    }
    snapshot.vms.push(once);
    let lame = count(Event::UserSplitLockWarned, time);
    snapshot.processes.push(ProcessRow {
        subject: SubjectId {
            pid: 400,
            start_ticks: 1,
        },
        comm: "lame".into(),
        owner: owner("/system.slice/lame.service"),
        started_at: BEGIN as f64,
        alive: true,
        traps: vec![lame.clone()],
        alignment_checks: time * 7,
        delay_ns: time * 10_000_000,
        last_trap: Some((BEGIN + time) as f64),
        sites: vec![],
        carried: None,
    });
    snapshot.workloads.push(WorkloadRow {
        comm: "lame".into(),
        unit: "lame.service".into(),
        traps: vec![lame],
    });
    set(&mut snapshot, Event::UserSplitLockWarned, time);
    set(
        &mut snapshot,
        Event::GuestSplitLockWarned,
        warned + u64::from(time >= ONCE),
    );
    snapshot.kernel_log_reports.insert("split_lock", time / 10);
    // An exit and the hook of the lock in it, 2 and 5 microseconds each.
    for (place, runs, each) in [(0, warned * 54, 2000), (1, warned, 5000)] {
        snapshot.probes[place].runs = Some(ProbeRuns {
            runs,
            nanoseconds: runs * each,
        });
    }
    snapshot
}

/// Fatal mode, past its limits: the migrated guest is killed here.
fn hv2(time: u64) -> Snapshot {
    let mut snapshot = host("fatal", &[("user", true), ("guest", true)]);
    if let Some(since) = time.checked_sub(MIGRATION) {
        let mut web1 = vm("web1", WEB1, 200);
        let killed = 1 + u64::from(since > 60);
        web1.traps = vec![count(Event::GuestSplitLockSigbus, killed)];
        web1.last_trap = Some((BEGIN + MIGRATION) as f64);
        snapshot.vms.push(web1);
        set(&mut snapshot, Event::GuestSplitLockSigbus, killed);
    }
    snapshot.overflow_traps.insert("process", time / 2);
    snapshot.lost.insert("trap_ledger_full", time / 30);
    snapshot.lost.insert("record_rate_limit", time);
    snapshot.host.changes = u64::from(time > MIGRATION);
    snapshot.probes[0].missed = Some(time / 100);
    snapshot.probes[0].runs = Some(ProbeRuns {
        runs: 100 * time,
        nanoseconds: 20_000 * time,
    });
    snapshot
}

/// A CPU that sees bus locks of processes only.
fn hv3(time: u64) -> Snapshot {
    let mut snapshot = host("ratelimit", &[("user", true), ("guest", false)]);
    set(&mut snapshot, Event::UserBusLockThrottled, time * 3);
    snapshot
}

/// Nothing but a VM that runs.
fn calm() -> Snapshot {
    let mut snapshot = host("warn", &[("user", true), ("guest", true)]);
    snapshot.vms.push(vm("calm", "500-1", 500));
    snapshot
}

/// A VM traps three times, is killed, and is gone before the end.
fn steady(time: u64) -> Snapshot {
    if (4500..6000).contains(&time) {
        with_traps("gone", 3)
    } else {
        host("warn", &[("user", true), ("guest", true)])
    }
}

/// One VM, which trapped so often before and does no longer.
fn with_traps(name: &str, traps: u64) -> Snapshot {
    let mut snapshot = host("warn", &[("user", true), ("guest", true)]);
    let mut row = vm(name, "600-1", 600);
    row.traps = vec![count(Event::GuestSplitLockWarned, traps)];
    snapshot.vms.push(row);
    set(&mut snapshot, Event::GuestSplitLockWarned, traps);
    snapshot
}

fn count(event: Event, count: u64) -> TrapCount {
    TrapCount::new(event.lock().expect("it is a lock"), count)
}

fn set(snapshot: &mut Snapshot, event: Event, to: u64) {
    let wanted = count(event, 0);
    for total in &mut snapshot.host_traps {
        if total.count == 0 && *total == wanted {
            total.count = to;
        }
    }
}

fn owner(cgroup: &str) -> Arc<Owner> {
    let (_, unit) = cgroup.rsplit_once('/').expect("a path");
    Arc::new(Owner {
        exe: format!("/usr/bin/{unit}"),
        cgroup: cgroup.to_owned(),
        unit: unit.to_owned(),
        ..Owner::default()
    })
}

fn vm(name: &str, id: &str, pid: u32) -> VmRow {
    VmRow {
        subject: SubjectId {
            pid,
            start_ticks: 1,
        },
        vm: name.to_owned(),
        id: id.to_owned(),
        vmm: Vmm::Qemu,
        named_by: Evidence::CommandLine,
        owner: owner(&format!("/machine.slice/{name}.scope")),
        started_at: BEGIN as f64,
        alive: true,
        vcpus: 2,
        vcpu_threads: BTreeMap::new(),
        traps: vec![],
        ac_injected: 0,
        delay_ns: 0,
        last_trap: None,
        exits: BTreeMap::new(),
        userspace_exits: BTreeMap::new(),
        sites: vec![],
        carried: None,
    }
}

fn probe(name: &'static str, via: Option<&'static str>, counts: &'static str) -> ProbeRow {
    ProbeRow {
        probe: name,
        via,
        counts,
        refused: vec![],
        detached: None,
        missed: None,
        runs: None,
    }
}

/// A host where nothing has happened.
fn host(mode: &'static str, sees: &[(&'static str, bool)]) -> Snapshot {
    let full = |used| Fullness { used, limit: 1000 };
    let locks = Event::ALL.iter().filter_map(|event| event.lock());
    Snapshot {
        schema: SCHEMA,
        taken_at: 0.0,
        host: HostFacts {
            kernel: "6.18.0".to_owned(),
            cpu_features: BTreeMap::from([("split_lock_detect", true), ("bus_lock_detect", true)]),
            detection_mode: mode,
            detection_source: "memory",
            sees: sees.iter().copied().collect(),
            mitigation: Some(mode == "warn"),
            changes: 0,
        },
        host_traps: locks.map(|lock| TrapCount::new(lock, 0)).collect(),
        processes: vec![],
        vms: vec![],
        workloads: vec![],
        overflow_traps: BTreeMap::from([("process", 0), ("vm", 0), ("workload", 0)]),
        overflow_subjects: BTreeMap::from([("process", 0), ("vm", 0), ("workload", 0)]),
        lost: Loss::ALL.iter().map(|loss| (loss.name(), 0)).collect(),
        tracked: BTreeMap::from([("process", full(1)), ("vm", full(2)), ("workload", full(1))]),
        ledgers: BTreeMap::from([("traps", full(3)), ("exits", full(4))]),
        record_ring: Some(RecordRing {
            used_bytes: 0,
            peak_bytes: 112,
            size_bytes: 262_144,
        }),
        privileges: PrivilegeFacts::dropped(),
        probes: vec![
            probe("kvm_exit", Some("tracepoint"), "every_trap"),
            probe("handle_guest_split_lock", Some("fentry"), "lower_bound"),
            probe("split_lock_warn", None, "none"),
        ],
        kernel_log_reports: BTreeMap::from([("split_lock", 0), ("bus_lock", 0)]),
        kernel_log_history: Some(BTreeMap::from([("split_lock", 4)])),
        recent: vec![],
    }
}
