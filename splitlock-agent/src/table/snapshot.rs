//! The snapshot: everything there is to show, at one moment. Exporters read nothing else.
//!
//! Its serialised form is the body of `/api/v1/snapshot`. Times are Unix seconds.

use std::collections::BTreeMap;

use serde::Serialize;
use splitlock_common::{Event, Lock};

use crate::subjects::SubjectId;

/// Version of the serialised form; it rises when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Trapped locks of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrapCount {
    /// `user` or `guest`.
    pub origin: &'static str,
    /// `split_lock` or `bus_lock`.
    pub trap: &'static str,
    /// What the kernel did.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
}

impl TrapCount {
    /// With the labels of `lock`.
    pub const fn new(lock: Lock, count: u64) -> Self {
        Self {
            origin: lock.origin.name(),
            trap: lock.trap.name(),
            outcome: lock.outcome.name(),
            count,
        }
    }
}

/// Counts that a process's series go on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// By event.
    pub events: [u64; Event::COUNT],
    /// Nanoseconds.
    pub delay_ns: u64,
}

impl Carried {
    /// Takes over another's as well.
    pub fn add(&mut self, other: &Self) {
        let Self { events, delay_ns } = other;
        for (sum, count) in self.events.iter_mut().zip(events) {
            *sum += count;
        }
        self.delay_ns += delay_ns;
    }
}

/// One process with events of its own code.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessRow {
    /// Who it is.
    #[serde(flatten)]
    pub subject: SubjectId,
    /// The group leader's comm at the first event.
    pub comm: String,
    /// Whether it still runs.
    pub alive: bool,
    /// Its trapped locks; kinds that never happened are left out.
    pub traps: Vec<TrapCount>,
    /// Alignment checks, which are no locks.
    pub alignment_checks: u64,
    /// Nanoseconds that the kernel held it up.
    pub delay_ns: u64,
    /// When its last lock was trapped.
    pub last_trap: Option<f64>,
    /// What earlier processes of the same pid and comm left behind: they share their series with
    /// this one, and a counter must not go back.
    #[serde(skip)]
    pub carried: Carried,
}

/// One VM.
#[derive(Clone, Debug, Serialize)]
pub struct VmRow {
    /// Who its VMM is.
    #[serde(flatten)]
    pub subject: SubjectId,
    /// Its name.
    pub vm: String,
    /// Its unique id.
    pub id: String,
    /// Whether its VMM still runs.
    pub alive: bool,
    /// vCPU threads seen.
    pub vcpus: u32,
    /// Its trapped locks; kinds that never happened are left out.
    pub traps: Vec<TrapCount>,
    /// Alignment-check exceptions that KVM handed to the guest.
    pub ac_injected: u64,
    /// Nanoseconds that the kernel held its vCPUs up.
    pub delay_ns: u64,
    /// When its last lock was trapped.
    pub last_trap: Option<f64>,
    /// VM exits by reason.
    pub exits: BTreeMap<&'static str, u64>,
    /// Returns to the VMM by reason.
    pub userspace_exits: BTreeMap<&'static str, u64>,
}

/// How full a bounded set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fullness {
    /// Members.
    pub used: u64,
    /// Places.
    pub limit: u64,
}

/// One hook.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeRow {
    /// Its name.
    pub probe: &'static str,
    /// How it is attached; `None` where it is not.
    pub via: Option<&'static str>,
    /// What its count means.
    pub counts: &'static str,
    /// Ways that were refused, each with the reason.
    pub refused: Vec<String>,
    /// How often the kernel skipped its programs; `None` where it has none.
    pub missed: Option<u64>,
}

/// What the host is.
#[derive(Clone, Debug, Serialize)]
pub struct HostFacts {
    /// `uname -r`.
    pub kernel: String,
    /// CPU features that can notice locks, and whether this host has them.
    pub cpu_features: BTreeMap<&'static str, bool>,
    /// The mode of detection.
    pub detection_mode: &'static str,
    /// How the mode is known.
    pub detection_source: &'static str,
    /// Whether a lock of each origin would be noticed; absent where the mode is unknown.
    pub sees: BTreeMap<&'static str, bool>,
    /// `kernel.split_lock_mitigate`, where the kernel has it.
    pub mitigation: Option<bool>,
    /// How often the mode or the mitigation was seen to change.
    pub changes: u64,
}

/// One event, as the ring buffer told it.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// When.
    pub time: f64,
    /// What.
    pub event: &'static str,
    /// The hook that saw it.
    pub probe: &'static str,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's comm.
    pub comm: String,
    /// CPU it happened on.
    pub cpu: u32,
    /// vCPU number, where known.
    pub vcpu: Option<u32>,
    /// Instruction pointer as hexadecimal text, where the hook tells it.
    pub ip: Option<String>,
}

/// Everything there is to show.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it was taken.
    pub taken_at: f64,
    /// What the host is.
    pub host: HostFacts,
    /// Totals of the host, all kinds.
    pub host_traps: Vec<TrapCount>,
    /// Processes.
    pub processes: Vec<ProcessRow>,
    /// VMs.
    pub vms: Vec<VmRow>,
    /// Trapped locks of subjects past a limit, by kind of subject.
    pub overflow_traps: BTreeMap<&'static str, u64>,
    /// Losses by cause.
    pub lost: BTreeMap<&'static str, u64>,
    /// Subjects that are tracked, by kind.
    pub tracked: BTreeMap<&'static str, Fullness>,
    /// The hooks.
    pub probes: Vec<ProbeRow>,
    /// Reports of the kernel log since the start, by trap.
    pub kernel_log_reports: BTreeMap<&'static str, u64>,
    /// Reports of the kernel log that were there at the start, by trap; absent where the log
    /// could not be read.
    pub kernel_log_history: Option<BTreeMap<&'static str, u64>>,
    /// The newest events, newest first.
    pub recent: Vec<Story>,
}
