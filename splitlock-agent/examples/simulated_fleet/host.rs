//! One host at a time of day: its detection, its VMs that come and go, its services that crash.
//!
//! Everything follows from the host's number and the time, so that nothing has to be remembered and
//! counters never go back.

use std::{collections::BTreeMap, sync::Arc};

use splitlock_agent::{
    subjects::{
        SubjectId,
        vmm::{Evidence, Vmm},
    },
    table::snapshot::{
        ByReason, Fullness, HostFacts, Owner, ProbeRow, ProcessRow, RecordRing, SCHEMA, Snapshot,
        TrapCount, VmRow, WorkloadRow,
    },
};
use splitlock_common::{Event, Loss};

use super::random::number;

/// VMs at a time.
const VMS: u64 = 30;
/// A VM lives for hours: up to twice this many seconds.
const LIFE: u64 = 6 * 3600;
/// The agent's default: the series of an ended VM stay so many seconds.
const RETENTION: u64 = 15 * 60;
/// Of so many VMs one makes locks.
const OFFENDERS: u64 = 200;
/// A service that crashes comes back after so many seconds.
const CRASH: u64 = 300;

/// Exits per second of a VM that is busy, by reason; a quiet one has a hundredth.
const EXITS: [(&str, u64); 18] = [
    ("msr_write", 900),
    ("hlt", 700),
    ("external_interrupt", 400),
    ("preemption_timer", 350),
    ("ept_misconfig", 300),
    ("io_instruction", 120),
    ("ept_violation", 80),
    ("pause_instruction", 60),
    ("interrupt_window", 40),
    ("cpuid", 30),
    ("msr_read", 20),
    ("apic_access", 12),
    ("eoi_induced", 10),
    ("exception_nmi", 8),
    ("cr_access", 6),
    ("dr_access", 2),
    ("tpr_below_threshold", 1),
    ("vmcall", 1),
];

/// Returns to the VMM per second of a busy VM.
const USERSPACE_EXITS: [(&str, u64); 4] = [
    ("io", 60),
    ("mmio", 30),
    ("restart", 10),
    ("irq_window_open", 2),
];

/// The host's snapshot at a Unix time.
pub fn snapshot(host: u32, now: u64) -> Snapshot {
    let host = u64::from(host);
    let (mode, sees) = detection(host);
    let mut snapshot = empty(mode, sees, now);
    for place in 0..VMS {
        let Life { of, since, before } = life(host, place, now);
        if let Some(ended) = before
            && now - ended.1 < RETENTION
        {
            add_vm(
                &mut snapshot,
                host,
                place,
                (of - 1, ended.0),
                ended.1,
                false,
            );
        }
        add_vm(&mut snapshot, host, place, (of, since), now, true);
    }
    add_service(&mut snapshot, host, now);
    snapshot
}

/// What most fleets have, and what some hosts of them have.
fn detection(host: u64) -> (&'static str, bool) {
    match number(&[host, 1]) % 100 {
        0..=84 => ("warn", true),
        85..=92 => ("fatal", true),
        93..=96 => ("off", false),
        _ => ("unsupported", false),
    }
}

/// Which VM is in a place.
struct Life {
    /// Its number there.
    of: u64,
    /// Since when.
    since: u64,
    /// From when to when the one before it lived.
    before: Option<(u64, u64)>,
}

fn life(host: u64, place: u64, now: u64) -> Life {
    let length = LIFE / 2 + number(&[host, place, 2]) % (LIFE * 3 / 2);
    let shifted = now + number(&[host, place, 3]) % length;
    let of = shifted / length;
    let since = now - shifted % length;
    Life {
        of,
        since,
        before: since.checked_sub(length).map(|begin| (begin, since)),
    }
}

fn add_vm(
    snapshot: &mut Snapshot,
    host: u64,
    place: u64,
    (of, since): (u64, u64),
    until: u64,
    alive: bool,
) {
    let seed = [host, place, of];
    let age = until.saturating_sub(since);
    let share = if number(&seed) % 10 < 4 { 100 } else { 1 };
    let happened = |rates: &[(&'static str, u64)]| -> ByReason {
        let counts = rates
            .iter()
            .map(|(reason, rate)| (*reason, rate * share * age / 100));
        counts.filter(|(_, count)| *count > 0).collect()
    };
    let uuid = uuid(&seed);
    let name = format!("instance-{:08x}", number(&seed) as u32);
    let mut row = VmRow {
        subject: SubjectId {
            pid: 2000 + (number(&seed) % 4_000_000) as u32,
            start_ticks: since * 100,
        },
        vm: name.clone(),
        id: uuid,
        vmm: Vmm::Qemu,
        named_by: Evidence::CommandLine,
        owner: Arc::new(Owner {
            exe: "/usr/bin/qemu-system-x86_64".to_owned(),
            cgroup: format!(r"/machine.slice/machine-qemu\x2d{of}\x2d{name}.scope"),
            ..Owner::default()
        }),
        started_at: since as f64,
        alive,
        vcpus: 4,
        vcpu_threads: BTreeMap::new(),
        traps: vec![],
        ac_injected: 0,
        delay_ns: 0,
        last_trap: None,
        exits: happened(&EXITS),
        userspace_exits: happened(&USERSPACE_EXITS),
        carried: None,
    };
    if snapshot.host.sees["guest"] && number(&[host, place, of, 4]).is_multiple_of(OFFENDERS) {
        let (event, count) = match snapshot.host.detection_mode {
            "fatal" => (Event::GuestSplitLockSigbus, 1),
            // From one in a minute to some in a second.
            _ => (
                Event::GuestSplitLockWarned,
                age * (1 + number(&[host, place, of, 5]) % 200) / 60,
            ),
        };
        if count > 0 {
            row.traps = counted(snapshot, event, count);
            row.last_trap = Some(until as f64);
            if event == Event::GuestSplitLockWarned {
                row.delay_ns = count * 10_000_000;
            }
        }
    }
    snapshot.vms.push(row);
}

/// A service that locks, dies of something and comes back under another pid, on one host in twenty.
fn add_service(snapshot: &mut Snapshot, host: u64, now: u64) {
    if !snapshot.host.sees["user"] || !number(&[host, 6]).is_multiple_of(20) {
        return;
    }
    let event = match snapshot.host.detection_mode {
        "fatal" => Event::UserSplitLockSigbus,
        _ => Event::UserSplitLockWarned,
    };
    // Since a week, so that the total goes on.
    let begin = now - now % (7 * 24 * 3600);
    let total = (now - begin) / CRASH;
    let traps = counted(snapshot, event, total);
    snapshot.workloads.push(WorkloadRow {
        comm: "batch-worker".into(),
        unit: "batch.service".into(),
        traps,
    });
    for life in 0..RETENTION / CRASH {
        let start = now - now % CRASH - life * CRASH;
        snapshot.processes.push(ProcessRow {
            subject: SubjectId {
                pid: 2000 + (number(&[host, start]) % 4_000_000) as u32,
                start_ticks: start * 100,
            },
            comm: "batch-worker".into(),
            owner: Arc::new(Owner {
                exe: "/usr/bin/batch-worker".to_owned(),
                cgroup: "/system.slice/batch.service".to_owned(),
                unit: "batch.service".to_owned(),
                ..Owner::default()
            }),
            started_at: start as f64,
            alive: life == 0,
            traps: event
                .lock()
                .map(|lock| TrapCount::new(lock, 1))
                .into_iter()
                .collect(),
            alignment_checks: 0,
            delay_ns: 10_000_000,
            last_trap: Some(start as f64),
            carried: None,
        });
    }
}

/// Counts for the host as well.
fn counted(snapshot: &mut Snapshot, event: Event, count: u64) -> Vec<TrapCount> {
    let Some(lock) = event.lock() else {
        return vec![];
    };
    let own = TrapCount::new(lock, count);
    for total in &mut snapshot.host_traps {
        if *total == TrapCount::new(lock, total.count) {
            total.count += count;
        }
    }
    vec![own]
}

fn uuid(seed: &[u64]) -> String {
    let high = number(&[seed, &[7]].concat());
    let low = number(&[seed, &[8]].concat());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        (low >> 48) & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

fn empty(mode: &'static str, sees: bool, now: u64) -> Snapshot {
    let full = |used, limit| Fullness { used, limit };
    let probe = |probe, via: Option<&'static str>, counts| ProbeRow {
        probe,
        via,
        counts,
        refused: vec![],
        missed: via.map(|_| 0),
        runs: None,
    };
    let has_mode = mode != "unsupported";
    Snapshot {
        schema: SCHEMA,
        taken_at: now as f64,
        host: HostFacts {
            kernel: "6.12.0".to_owned(),
            cpu_features: BTreeMap::from([
                ("split_lock_detect", has_mode),
                ("bus_lock_detect", has_mode),
            ]),
            detection_mode: mode,
            detection_source: "memory",
            sees: BTreeMap::from([("user", sees), ("guest", sees)]),
            mitigation: Some(true),
            changes: 0,
        },
        host_traps: Event::ALL
            .iter()
            .filter_map(|event| Some(TrapCount::new(event.lock()?, 0)))
            .collect(),
        processes: vec![],
        vms: vec![],
        workloads: vec![],
        overflow_traps: BTreeMap::from([("process", 0), ("vm", 0), ("workload", 0)]),
        lost: Loss::ALL.iter().map(|loss| (loss.name(), 0)).collect(),
        tracked: BTreeMap::from([
            ("process", full(3, 1000)),
            ("vm", full(VMS, 4096)),
            ("workload", full(1, 1000)),
        ]),
        ledgers: BTreeMap::from([("traps", full(3, 13_288)), ("exits", full(4 * VMS, 4096))]),
        record_ring: Some(RecordRing {
            used_bytes: 0,
            peak_bytes: 96,
            size_bytes: 262_144,
        }),
        probes: vec![
            probe("signal_generate", Some("raw_tracepoint"), "none"),
            probe("kvm_inj_exception", Some("raw_tracepoint"), "every_trap"),
            probe("kvm_userspace_exit", Some("raw_tracepoint"), "every_trap"),
            probe("kvm_exit", Some("raw_tracepoint"), "every_trap"),
            probe("handle_user_split_lock", Some("fentry"), "lower_bound"),
            probe("handle_guest_split_lock", Some("fentry"), "lower_bound"),
            probe("handle_bus_lock", Some("fentry"), "every_trap"),
            probe("split_lock_warn", Some("fentry"), "none"),
            probe("kernel_log", None, "none"),
        ],
        kernel_log_reports: BTreeMap::from([("split_lock", 0), ("bus_lock", 0)]),
        kernel_log_history: Some(BTreeMap::from([("split_lock", 0), ("bus_lock", 0)])),
        recent: vec![],
    }
}
