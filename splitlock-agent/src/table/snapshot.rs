//! The snapshot: everything there is to show, at one moment. Exporters read nothing else.
//!
//! Its serialised form is the body of `/api/v1/snapshot`. Times are Unix seconds.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use splitlock_common::{Event, Lock};

use crate::{
    code::Code,
    subjects::{
        SubjectId,
        identity::{Identity, Missing},
        vmm::{Evidence, Vmm},
    },
};

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

    /// Those of guests, or of own code, that happened.
    pub fn of_side(guest: bool, count: impl Fn(Event) -> u64) -> Vec<Self> {
        Event::ALL
            .iter()
            .filter(|event| event.is_guest() == guest)
            .filter_map(|event| Some((event.lock()?, count(*event))))
            .filter(|(_, count)| *count > 0)
            .map(|(lock, count)| Self::new(lock, count))
            .collect()
    }
}

/// What rights the agent has, and who looks into other processes for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrivilegeFacts {
    /// Whether it gave up those that it was started with.
    pub dropped: bool,
    /// Its user id.
    pub user: u32,
    /// Capabilities in force: `none`, `all`, or names with commas between them.
    pub capabilities: String,
    /// How whole its Landlock domain is: `full`, `partial` or `none`.
    pub landlock: &'static str,
    /// Whether its system calls are filtered.
    pub seccomp: bool,
    /// What could not be given up, in words.
    pub kept: Vec<String>,
    /// The processes that look; none where the agent does so itself.
    pub helpers: Vec<HelperRow>,
}

impl PrivilegeFacts {
    /// Of an agent that gave all of them up, as user 65519 and with all helpers there.
    pub fn dropped() -> Self {
        let helpers = ["keeper", "resolver", "symbolizer"];
        Self {
            dropped: true,
            user: 65_519,
            capabilities: "none".to_owned(),
            landlock: "full",
            seccomp: true,
            kept: vec![],
            helpers: helpers
                .map(|helper| HelperRow {
                    helper,
                    up: true,
                    deaths: 0,
                })
                .into(),
        }
    }
}

/// A process that looks into other processes for the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HelperRow {
    /// `keeper`, `resolver` or `symbolizer`.
    pub helper: &'static str,
    /// Whether it is there, or would be if it were asked.
    pub up: bool,
    /// How many of them died without being asked to.
    pub deaths: u64,
}

/// Counts by name of the reason.
pub type ByReason = BTreeMap<&'static str, u64>;

/// Counts that series go on from: those of subjects that had the same labels before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// By event.
    pub events: [u64; Event::COUNT],
    /// Nanoseconds.
    pub delay_ns: u64,
    /// VM exits.
    pub exits: ByReason,
    /// Returns to the VMM.
    pub userspace_exits: ByReason,
}

impl Carried {
    /// Takes over another's as well.
    pub fn add(&mut self, other: &Self) {
        let Self {
            events,
            delay_ns,
            exits,
            userspace_exits,
        } = other;
        for (sum, count) in self.events.iter_mut().zip(events) {
            *sum += count;
        }
        self.delay_ns += delay_ns;
        add_reasons(&mut self.exits, exits);
        add_reasons(&mut self.userspace_exits, userspace_exits);
    }
}

/// Adds counts by reason to others.
pub fn add_reasons(sums: &mut ByReason, counts: &ByReason) {
    for (reason, count) in counts {
        *sums.entry(reason).or_default() += count;
    }
}

/// Whose a process is, as labels have it. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The file it runs.
    pub exe: String,
    /// The first 256 bytes of its arguments.
    pub command_line: String,
    /// Path of its cgroup.
    pub cgroup: String,
    /// systemd unit.
    pub unit: String,
    /// `containerd://…`
    pub container_id: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// What could not be learnt, and why.
    pub missing: Vec<Missing>,
}

impl Owner {
    /// The container's id, else the systemd unit, else nothing.
    pub fn workload_unit(&self) -> &str {
        if self.container_id.is_empty() {
            &self.unit
        } else {
            &self.container_id
        }
    }
}

impl From<&Identity> for Owner {
    fn from(identity: &Identity) -> Self {
        let cgroup = identity.cgroup.clone().unwrap_or_default();
        Self {
            exe: identity.exe.clone().unwrap_or_default(),
            command_line: identity.command_line.clone().unwrap_or_default(),
            cgroup: cgroup.cgroup,
            unit: cgroup.unit.unwrap_or_default(),
            container_id: cgroup
                .container
                .map_or_else(String::new, |container| container.label()),
            pod_uid: cgroup.pod_uid.unwrap_or_default(),
            missing: identity.missing.clone(),
        }
    }
}

/// All processes of one comm in one unit.
#[derive(Clone, Debug, Serialize)]
pub struct WorkloadRow {
    /// The group leader's comm.
    pub comm: Arc<str>,
    /// The container's id, else the systemd unit, else empty.
    pub unit: Arc<str>,
    /// Trapped locks of their own code.
    pub traps: Vec<TrapCount>,
}

/// One process with events of its own code.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessRow {
    /// Who it is.
    #[serde(flatten)]
    pub subject: SubjectId,
    /// The group leader's comm at the first event.
    pub comm: Arc<str>,
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Arc<Owner>,
    /// Unix time of its start.
    pub started_at: f64,
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
    /// Where it trapped, those with most records first, 8 at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Site>,
    /// What earlier processes of the same pid and comm left behind: they share their series with
    /// this one, and a counter must not go back.
    #[serde(skip)]
    pub carried: Option<Box<Carried>>,
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
    /// What runs it.
    pub vmm: Vmm,
    /// Where its name is from.
    pub named_by: Evidence,
    /// Whose its VMM is.
    #[serde(flatten)]
    pub owner: Arc<Owner>,
    /// Unix time of its VMM's start.
    pub started_at: f64,
    /// Whether its VMM still runs.
    pub alive: bool,
    /// vCPU threads seen, also those that have ended.
    pub vcpus: u32,
    /// The threads that run its vCPUs: by thread id, with the vCPU's number where it is known.
    pub vcpu_threads: BTreeMap<u32, Option<u32>>,
    /// Its trapped locks; kinds that never happened are left out.
    pub traps: Vec<TrapCount>,
    /// Alignment-check exceptions that KVM handed to the guest.
    pub ac_injected: u64,
    /// Nanoseconds that the kernel held its vCPUs up.
    pub delay_ns: u64,
    /// When its last lock was trapped.
    pub last_trap: Option<f64>,
    /// VM exits by reason.
    pub exits: ByReason,
    /// Returns to the VMM by reason.
    pub userspace_exits: ByReason,
    /// Where its guest trapped, those with most records first, 8 at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Site>,
    /// What earlier VMs of the same name and id left behind: they share their series with this one,
    /// and a counter must not go back.
    #[serde(skip)]
    pub carried: Option<Box<Carried>>,
}

/// How full a bounded set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fullness {
    /// Members.
    pub used: u64,
    /// Places.
    pub limit: u64,
}

/// How full the kernel's ledgers are: `traps` by subjects, `exits` by vCPU threads.
pub type LedgerFullness = BTreeMap<&'static str, Fullness>;

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
    /// Why it was taken off while the agent ran; `None` where it was not.
    pub detached: Option<&'static str>,
    /// How often the kernel skipped its programs; `None` where it has none.
    pub missed: Option<u64>,
    /// What its programs did; `None` where the kernel does not count it.
    pub runs: Option<ProbeRuns>,
}

/// Runs of a hook's programs, and the time in them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProbeRuns {
    /// How many.
    pub runs: u64,
    /// How long, all together.
    pub nanoseconds: u64,
}

/// How full the ring buffer of the records is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RecordRing {
    /// Bytes that wait to be read.
    pub used_bytes: u64,
    /// The most that waited at a reading since the start.
    pub peak_bytes: u64,
    /// Its size.
    pub size_bytes: u64,
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
    /// The function and the offset in it, once they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
}

/// An instruction that trapped, by the records that told of it. Records are limited per subject and
/// second, so this tells where the traps are, and not how many.
#[derive(Clone, Debug, Serialize)]
pub struct Site {
    /// What happened there.
    pub event: &'static str,
    /// Address of the instruction in the process, or in the guest, as hexadecimal text.
    pub ip: String,
    /// How many records told of it.
    pub records: u64,
    /// When the last of them was written.
    pub last: f64,
    /// What is there; `None` in a guest, and until it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Arc<Code>>,
}

/// One subject in full: the answer of `/api/v1/subjects/PID-START_TICKS`.
#[derive(Clone, Debug, Serialize)]
pub struct SubjectDetail {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it was looked at.
    pub taken_at: f64,
    /// As a process; absent where it has no series as one.
    pub process: Option<ProcessRow>,
    /// As a VM; absent likewise.
    pub vm: Option<VmRow>,
    /// All its sites that are kept, those with most records first.
    pub sites: Vec<Site>,
    /// Records of sites that found no room.
    pub other_records: u64,
    /// Its newest events, newest first.
    pub recent: Vec<Story>,
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
    /// Workloads.
    pub workloads: Vec<WorkloadRow>,
    /// Trapped locks of subjects past a limit, by kind of subject.
    pub overflow_traps: BTreeMap<&'static str, u64>,
    /// Subjects that found no place when they came, by kind.
    pub overflow_subjects: BTreeMap<&'static str, u64>,
    /// Losses by cause.
    pub lost: BTreeMap<&'static str, u64>,
    /// Subjects that are tracked, by kind.
    pub tracked: BTreeMap<&'static str, Fullness>,
    /// How full the kernel's ledgers are.
    pub ledgers: LedgerFullness,
    /// How full the ring buffer is; `None` once it could not be read any more.
    pub record_ring: Option<RecordRing>,
    /// What rights the agent has.
    pub privileges: PrivilegeFacts,
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
