//! What an agent shows, as far as the test looks at it: a part of the snapshot.

use std::collections::BTreeMap;

use serde::Deserialize;
use splitlock_common::{Event, Hook, HookSet, authority::authority};

use crate::subjects::SubjectId;

/// A snapshot.
#[derive(Clone, Debug, Deserialize)]
pub struct Reading {
    /// The schema's version.
    pub schema: u32,
    /// What the host is.
    pub host: Host,
    /// Processes with series of their own.
    pub processes: Vec<Process>,
    /// VMs likewise.
    pub vms: Vec<Vm>,
    /// Places for them, by kind.
    pub tracked: BTreeMap<String, Places>,
    /// The hooks.
    pub probes: Vec<Probe>,
    /// Reports of the kernel log, by trap.
    pub kernel_log_reports: BTreeMap<String, u64>,
}

/// What the host is.
#[derive(Clone, Debug, Deserialize)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// By name.
    pub cpu_features: BTreeMap<String, bool>,
    /// The mode of detection.
    pub detection_mode: String,
    /// How it is known.
    pub detection_source: String,
    /// `kernel.split_lock_mitigate`, where the kernel has it.
    pub mitigation: Option<bool>,
}

/// One process.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    /// Who it is.
    #[serde(flatten)]
    pub subject: SubjectId,
    /// Its trapped locks.
    pub traps: Vec<Trap>,
    /// Its alignment checks.
    pub alignment_checks: u64,
}

/// Trapped locks of one kind.
#[derive(Clone, Debug, Deserialize)]
pub struct Trap {
    /// How many.
    pub count: u64,
}

/// One VM.
#[derive(Clone, Debug, Deserialize)]
pub struct Vm {
    /// Who its VMM is.
    #[serde(flatten)]
    pub subject: SubjectId,
    /// Alignment checks that KVM handed to the guest.
    pub ac_injected: u64,
    /// VM exits by reason.
    pub exits: BTreeMap<String, u64>,
    /// Returns to the VMM by reason.
    pub userspace_exits: BTreeMap<String, u64>,
}

/// Places for subjects of one kind.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Places {
    /// Taken.
    pub used: u64,
    /// All.
    pub limit: u64,
}

/// One hook.
#[derive(Clone, Debug, Deserialize)]
pub struct Probe {
    /// Its name.
    pub probe: String,
    /// How it is attached.
    pub via: Option<String>,
    /// What its count means.
    pub counts: String,
    /// Ways that were refused, each with the reason.
    pub refused: Vec<String>,
    /// How often the kernel skipped its programs.
    pub missed: Option<u64>,
}

impl Reading {
    /// A hook.
    pub fn probe(&self, hook: Hook) -> Option<&Probe> {
        self.probes.iter().find(|row| row.probe == hook.name())
    }

    /// Whether a hook is attached.
    pub fn is_attached(&self, hook: Hook) -> bool {
        self.probe(hook).is_some_and(|row| row.via.is_some())
    }

    /// The hook that counts an event here.
    pub fn authority(&self, event: Event) -> Option<Hook> {
        let attached = Hook::ALL
            .into_iter()
            .filter(|hook| self.is_attached(*hook))
            .fold(HookSet::empty(), HookSet::with);
        authority(event, attached)
    }

    /// How often the kernel has skipped a hook's programs.
    pub fn missed(&self, hook: Hook) -> u64 {
        self.probe(hook).and_then(|row| row.missed).unwrap_or(0)
    }

    /// A process, if it has series.
    pub fn process(&self, who: SubjectId) -> Option<&Process> {
        self.processes.iter().find(|row| row.subject == who)
    }

    /// A VM, if it has series.
    pub fn vm(&self, who: SubjectId) -> Option<&Vm> {
        self.vms.iter().find(|row| row.subject == who)
    }
}

impl Host {
    /// Whether the CPU has a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.cpu_features.get(feature).copied().unwrap_or(false)
    }
}

/// The hooks that can count an event.
pub fn candidates(event: Event) -> impl Iterator<Item = Hook> {
    Hook::ALL
        .into_iter()
        .filter(move |hook| authority(event, HookSet::empty().with(*hook)).is_some())
}
