//! What the examination found: facts, no judgement. Their serialised form is the field `facts` of
//! `doctor --json`.

use serde::{Serialize, Serializer};
use splitlock_common::{Armed, Hook, HookSet, Mode};

use crate::{detection::evidence::Source, host::cpu::CpuFeatures};

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The CPU.
    pub cpu: Cpu,
    /// The kernel.
    pub kernel: Kernel,
    /// What it does about locks.
    pub detection: DetectionFacts,
    /// The agent's hooks.
    pub hooks: Hooks,
    /// KVM.
    pub kvm: Kvm,
    /// What this process may do.
    pub rights: Rights,
    /// Where tracefs is, or that it is not.
    pub tracefs: TracefsState,
    /// Whether the kernel describes its structures.
    pub btf: Check,
    /// Whether the kernel log can be read.
    pub kernel_log: Check,
    /// Limits of this process.
    pub limits: Limits,
    /// The agent that runs here, if one does.
    pub agent: RunningAgent,
}

/// Whether something is as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl<T> From<Result<T, String>> for Check {
    fn from(result: Result<T, String>) -> Self {
        Self {
            ok: result.is_ok(),
            reason: result.err(),
        }
    }
}

/// The CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// Its name; empty where the kernel does not tell.
    pub model: String,
    /// `vendor_id`: `GenuineIntel`, `AuthenticAMD` and others.
    pub vendor: String,
    /// `split_lock_detect`; `None` where the flags could not be read.
    pub split_lock_detect: Option<bool>,
    /// `bus_lock_detect`.
    pub bus_lock_detect: Option<bool>,
    /// Whether this machine is itself a VM.
    pub is_virtual: bool,
    /// KVM's module for it, if the CPU can run guests.
    pub kvm_module: Option<&'static str>,
}

impl Cpu {
    /// The two ways to notice a lock.
    pub fn features(&self) -> Option<CpuFeatures> {
        Some(CpuFeatures {
            split_lock_detect: self.split_lock_detect?,
            bus_lock_detect: self.bus_lock_detect?,
        })
    }
}

/// The kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Its major and minor number.
    #[serde(skip)]
    pub version: Option<(u32, u32)>,
    /// Whether a task can be preempted inside it.
    pub preemptible: bool,
    /// State of the lockdown; `None` where the kernel has none.
    pub lockdown: Option<String>,
    /// What it can do about detection that others cannot; `None` where BTF does not tell.
    pub abilities: Option<Abilities>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u32>,
    /// The boot parameter `split_lock_detect=`.
    pub parameter: Option<String>,
    /// Files from which the next boot has that parameter.
    pub parameter_files: Vec<String>,
    /// What makes the boot loader read such a file.
    pub boot_loader: Option<BootLoader>,
}

/// Changes to the kernel that distributions also bring to older versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Abilities {
    /// Whether each core turns detection on again by itself.
    pub rearms_each_core: bool,
    /// Whether it turns on bus-lock detection of all makers' CPUs, not of Intel's alone.
    pub arms_all_makers: bool,
}

/// A tool that changes the kernel's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BootLoader {
    /// Fedora, RHEL and their like.
    Grubby,
    /// Debian, Ubuntu and their like.
    UpdateGrub,
    /// Proxmox VE with systemd-boot.
    ProxmoxBootTool,
    /// SUSE, Arch and others.
    GrubMkconfig,
}

/// What the kernel does about locks, and who is seen.
#[derive(Clone, Debug, Serialize)]
pub struct DetectionFacts {
    /// The mode.
    #[serde(serialize_with = "mode_name")]
    pub mode: Mode,
    /// How it is known.
    #[serde(serialize_with = "source_name")]
    pub source: Source,
    /// Which exception is armed for user code, if any is.
    #[serde(serialize_with = "armed_name")]
    pub armed: Armed,
    /// `kernel.split_lock_mitigate`, where the kernel has it.
    pub mitigation: Option<bool>,
    /// Whether an agent with these hooks notices a process's lock; `None` where that is not known.
    pub sees_user: Option<bool>,
    /// The same of a guest's.
    pub sees_guest: Option<bool>,
}

/// How the hooks are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HowKnown {
    /// They were attached for a moment.
    Attached,
    /// The running agent says so.
    Agent,
    /// Nothing could be attached; this would be tried.
    Planned,
}

/// The hooks.
#[derive(Clone, Debug, Serialize)]
pub struct Hooks {
    /// How this is known.
    pub known: HowKnown,
    /// Why attaching failed as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// One for each.
    pub rows: Vec<HookRow>,
}

impl Hooks {
    /// The hooks that are attached, or would be tried.
    pub fn attached(&self) -> HookSet {
        Hook::ALL
            .into_iter()
            .filter(|hook| {
                self.rows.iter().any(|row| {
                    row.probe == hook.name() && (row.via.is_some() || !row.planned.is_empty())
                })
            })
            .fold(HookSet::empty(), HookSet::with)
    }
}

/// One hook.
#[derive(Clone, Debug, Serialize)]
pub struct HookRow {
    /// Its name.
    pub probe: String,
    /// How it is attached; `None` where it is not.
    pub via: Option<String>,
    /// What its count means.
    pub counts: String,
    /// The ways that would be tried, where nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub planned: Vec<String>,
    /// The ways that were refused, best first, each with the reason.
    pub refused: Vec<String>,
}

/// KVM.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Kvm {
    /// Whether `/dev/kvm` is there.
    pub device: bool,
    /// Its modules that run guests: `kvm_intel`, `kvm_amd` or others; loaded or built in.
    pub modules: Vec<String>,
    /// Whether a VMM can ask for exits on bus locks; `None` where KVM could not be asked.
    pub bus_lock_exits: Option<bool>,
}

impl Kvm {
    /// Whether there may be guests.
    pub fn runs_guests(&self) -> bool {
        self.device && !self.modules.is_empty()
            || self.modules.iter().any(|module| fires_exits(module))
    }

    /// Whether its guests' exits fire `kvm_exit`.
    pub fn fires_exits(&self) -> bool {
        self.modules.iter().any(|module| fires_exits(module))
    }
}

/// Mainline's two; a software variant such as PVM has no such exits.
fn fires_exits(module: &str) -> bool {
    matches!(module, "kvm_intel" | "kvm_amd")
}

/// What this process may do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rights {
    /// Capabilities without which nothing can be attached.
    pub missing: Option<String>,
    /// Capabilities without which the agent tells less, and what.
    pub lacking: Vec<&'static str>,
    /// Whether it is in the host's pid namespace, and where the host is mounted.
    pub pid_namespace: Check,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            ok: true,
            reason: None,
        }
    }
}

/// How tracefs is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "detail")]
pub enum TracefsState {
    /// Mounted, here.
    Mounted(String),
    /// Not mounted; the agent mounts it for itself.
    Private,
    /// Mounted, but not for this user.
    Closed,
    /// Not there: why.
    Missing(String),
}

/// Limits of this process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Limits {
    /// File descriptors, after they were raised as far as allowed; `None` for no limit.
    pub descriptors: Option<u64>,
    /// How many subjects an agent could watch with them.
    pub watched: u64,
    /// How many it may have to.
    pub subjects: u64,
    /// Bytes of locked memory, of which BPF's is part before 5.11; `None` for no limit.
    pub memlock: Option<u64>,
    /// Whether this process may raise it.
    pub can_raise: bool,
}

/// The agent that runs here, if one does.
#[derive(Clone, Debug, Serialize)]
pub struct RunningAgent {
    /// Where it was looked for.
    pub url: String,
    /// Whether the user said that there is one.
    pub is_expected: bool,
    /// Whether it answers, and counts.
    pub state: AgentState,
    /// What it says of the host.
    pub view: Option<AgentView>,
}

/// How an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "detail")]
pub enum AgentState {
    /// Its hooks are attached and its ledgers can be read.
    Healthy,
    /// Somebody answers, but not that.
    Unhealthy(String),
    /// Nobody answers.
    Absent(String),
}

/// What a running agent says of the host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AgentView {
    /// `uname -r`, as it knows it.
    pub kernel: String,
    /// The mode of detection.
    pub mode: String,
    /// How it is known.
    pub source: String,
    /// Whether it notices a process's lock.
    pub sees_user: Option<bool>,
    /// Whether it notices a guest's lock.
    pub sees_guest: Option<bool>,
    /// Whether it has seen a guest's bus lock, which proves that one VMM asked for them.
    pub reported: bool,
    /// Its hooks.
    pub hooks: Vec<HookRow>,
    /// What rights it has; `None` for an agent that does not tell.
    pub rights: Option<AgentRights>,
}

/// What rights a running agent has.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AgentRights {
    /// Whether it gave up those that it was started with.
    pub dropped: bool,
    /// Its user id.
    pub user: u64,
    /// Capabilities in force.
    pub capabilities: String,
    /// What it could not give up, in words.
    pub kept: Vec<String>,
    /// The processes that look into others for it and are not there.
    pub down: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn mode_name<S: Serializer>(mode: &Mode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(mode.name())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn source_name<S: Serializer>(source: &Source, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(source.name())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn armed_name<S: Serializer>(armed: &Armed, serializer: S) -> Result<S::Ok, S::Error> {
    match armed {
        Armed::Unknown => serializer.serialize_none(),
        Armed::SplitLock => serializer.serialize_some("split_lock"),
        Armed::BusLock => serializer.serialize_some("bus_lock"),
    }
}
