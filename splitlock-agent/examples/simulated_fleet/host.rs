//! One host at a time of day: its detection, its VMs that come and go, its services that crash.
//!
//! Everything follows from the host's number and the time, so that nothing has to be remembered.
//! Counters go back once a week, when all agents start anew.

use std::{collections::BTreeMap, sync::Arc};

use splitlock_agent::{
    subjects::{
        SubjectId,
        vmm::{Evidence, Vmm},
    },
    table::snapshot::{
        ByReason, Fullness, HostFacts, Owner, PrivilegeFacts, ProbeRow, ProcessRow, RecordRing,
        SCHEMA, Snapshot, TrapCount, VmRow, WorkloadRow,
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

/// All agents are as old as the week: their counters began with it.
const WEEK: u64 = 7 * 24 * 3600;

/// The host's snapshot at a Unix time.
pub fn snapshot(host: u32, now: u64) -> Snapshot {
    let host = u64::from(host);
    let (mode, sees) = detection(host);
    let mut snapshot = empty(mode, sees, now);
    let begin = now - now % WEEK;
    for place in 0..VMS {
        let lives = Lives::of(host, place);
        for life in lives.at(begin)..=lives.at(now) {
            let seed = [host, place, life];
            let vm = Vm {
                seed,
                since: lives.begin(life),
                counted: lives.begin(life).max(begin),
                until: lives.begin(life + 1).min(now),
            };
            if let Some((event, count)) = vm.locks(mode).filter(|_| sees) {
                count_for_host(&mut snapshot, event, count);
            }
            if vm.until == now || now - vm.until < RETENTION {
                snapshot.vms.push(vm.row(mode, sees, now));
            }
        }
    }
    add_service(&mut snapshot, host, now - begin, now);
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

/// The VMs of a place, one after the other, each of them for as long.
struct Lives {
    length: u64,
    shift: u64,
}

impl Lives {
    fn of(host: u64, place: u64) -> Self {
        let length = LIFE / 2 + number(&[host, place, 2]) % (LIFE * 3 / 2);
        Self {
            length,
            shift: number(&[host, place, 3]) % length,
        }
    }

    /// Which one there is at a time.
    const fn at(&self, time: u64) -> u64 {
        (time + self.shift) / self.length
    }

    /// When one begins, and the one before it ends.
    const fn begin(&self, life: u64) -> u64 {
        life * self.length - self.shift
    }
}

/// One VM.
struct Vm {
    seed: [u64; 3],
    since: u64,
    /// Since when it is counted.
    counted: u64,
    until: u64,
}

impl Vm {
    /// The locks that it was seen to make, if it is one of those that make any.
    fn locks(&self, mode: &str) -> Option<(Event, u64)> {
        let [host, place, life] = self.seed;
        if !number(&[host, place, life, 4]).is_multiple_of(OFFENDERS) {
            return None;
        }
        // From one in a minute to some in a second; SIGBUS ends a VMM.
        let per_minute = 1 + number(&[host, place, life, 5]) % 200;
        let count = (self.until - self.counted) * per_minute / 60;
        let seen = match mode {
            "fatal" => (Event::GuestSplitLockSigbus, count.min(1)),
            _ => (Event::GuestSplitLockWarned, count),
        };
        Some(seen).filter(|(_, count)| *count > 0)
    }

    fn row(&self, mode: &str, sees: bool, now: u64) -> VmRow {
        let number = number(&self.seed);
        let share = if number % 10 < 4 { 100 } else { 1 };
        let happened = |rates: &[(&'static str, u64)]| -> ByReason {
            let age = self.until - self.counted;
            let counts = rates
                .iter()
                .map(|(reason, rate)| (*reason, rate * share * age / 100));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        let locks = self.locks(mode).filter(|_| sees);
        let name = format!("instance-{:08x}", number >> 32);
        VmRow {
            subject: SubjectId {
                pid: 2000 + (number % 4_000_000) as u32,
                start_ticks: self.since * 100,
            },
            vm: name.clone(),
            id: uuid(&self.seed),
            vmm: Vmm::Qemu,
            named_by: Evidence::CommandLine,
            owner: Arc::new(Owner {
                exe: "/usr/bin/qemu-system-x86_64".to_owned(),
                cgroup: format!(
                    r"/machine.slice/machine-qemu\x2d{}\x2d{name}.scope",
                    self.seed[2]
                ),
                ..Owner::default()
            }),
            started_at: self.since as f64,
            alive: self.until == now,
            vcpus: 4,
            vcpu_threads: BTreeMap::new(),
            traps: locks
                .map(|(event, count)| counts(event, count))
                .unwrap_or_default(),
            ac_injected: 0,
            delay_ns: match locks {
                Some((Event::GuestSplitLockWarned, count)) => count * 10_000_000,
                _ => 0,
            },
            last_trap: locks.map(|_| self.until as f64),
            exits: happened(&EXITS),
            userspace_exits: happened(&USERSPACE_EXITS),
            sites: vec![],
            carried: None,
        }
    }
}

/// A service that locks, dies of something and comes back under another pid, on one host in twenty.
fn add_service(snapshot: &mut Snapshot, host: u64, age: u64, now: u64) {
    if !snapshot.host.sees["user"] || !number(&[host, 6]).is_multiple_of(20) {
        return;
    }
    let event = match snapshot.host.detection_mode {
        "fatal" => Event::UserSplitLockSigbus,
        _ => Event::UserSplitLockWarned,
    };
    let total = age / CRASH;
    count_for_host(snapshot, event, total);
    snapshot.workloads.push(WorkloadRow {
        comm: "batch-worker".into(),
        unit: "batch.service".into(),
        traps: counts(event, total),
    });
    for life in 0..(RETENTION / CRASH).min(total) {
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
            traps: counts(event, 1),
            alignment_checks: 0,
            delay_ns: 10_000_000,
            last_trap: Some(start as f64),
            sites: vec![],
            carried: None,
        });
    }
}

fn counts(event: Event, count: u64) -> Vec<TrapCount> {
    event
        .lock()
        .map(|lock| TrapCount::new(lock, count))
        .into_iter()
        .collect()
}

fn count_for_host(snapshot: &mut Snapshot, event: Event, count: u64) {
    for own in counts(event, count) {
        for total in &mut snapshot.host_traps {
            if (&total.origin, &total.trap, &total.outcome)
                == (&own.origin, &own.trap, &own.outcome)
            {
                total.count += count;
            }
        }
    }
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
        detached: None,
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
        overflow_subjects: BTreeMap::from([("process", 0), ("vm", 0), ("workload", 0)]),
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
        privileges: PrivilegeFacts::dropped(),
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
