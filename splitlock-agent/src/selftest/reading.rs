//! What an agent shows, as far as the test looks at it: a part of the snapshot.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use splitlock_common::{Event, Hook, HookSet, authority::authority};

use crate::subjects::{SubjectId, names::printable};

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
    #[serde(deserialize_with = "text")]
    pub kernel: String,
    /// By name.
    pub cpu_features: BTreeMap<String, bool>,
    /// The mode of detection.
    #[serde(deserialize_with = "text")]
    pub detection_mode: String,
    /// How it is known.
    #[serde(deserialize_with = "text")]
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
    #[serde(deserialize_with = "text")]
    pub probe: String,
    /// How it is attached.
    #[serde(deserialize_with = "optional_text")]
    pub via: Option<String>,
    /// What its count means.
    #[serde(deserialize_with = "text")]
    pub counts: String,
    /// Ways that were refused, each with the reason.
    #[serde(deserialize_with = "texts")]
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

/// Text that the report shows on a terminal: what answers may be no agent.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| printable(text.as_bytes()))
}

fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| printable(text.as_bytes())))
}

fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    Ok(texts
        .iter()
        .map(|text| printable(text.as_bytes()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(reading: &Reading) {
        let Host {
            kernel,
            detection_mode,
            detection_source,
            ..
        } = &reading.host;
        let probes = reading.probes.iter().flat_map(|row| {
            let Probe {
                probe,
                via,
                counts,
                refused,
                missed: _,
            } = row;
            [probe, counts].into_iter().chain(via).chain(refused)
        });
        for text in [kernel, detection_mode, detection_source]
            .into_iter()
            .chain(probes)
        {
            assert_eq!(*text, printable(text.as_bytes()));
        }
        for hook in Hook::ALL {
            assert_eq!(
                reading.is_attached(hook),
                reading.probe(hook).is_some_and(|row| row.via.is_some())
            );
            let _ = reading.missed(hook);
        }
        for event in Event::ALL {
            assert!(
                reading
                    .authority(event)
                    .is_none_or(|hook| reading.is_attached(hook))
            );
        }
    }

    #[test]
    fn what_an_agent_says_is_fit_for_a_terminal() {
        let body = r#"{"schema":1,"host":{"kernel":"a\u001b[2J","cpu_features":{},"detection_mode":"\u202e",
            "detection_source":"x","mitigation":null},"processes":[],"vms":[],"tracked":{},
            "probes":[{"probe":"kvm_exit","via":"\u0007","counts":"none","refused":["\n"],"missed":1}],
            "kernel_log_reports":{}}"#;
        let reading: Reading = serde_json::from_str(body).unwrap();
        hold(&reading);
        assert_eq!(reading.host.kernel, "a\\x1b[2J");
        assert_eq!(reading.probes[0].refused, ["\\x0a"]);
    }

    #[test]
    fn fuzz_reading() {
        bolero::check!(name = "reading").for_each(|body: &[u8]| {
            if let Ok(reading) = serde_json::from_slice::<Reading>(body) {
                hold(&reading);
            }
        });
    }
}
