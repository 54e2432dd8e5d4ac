//! What was made, what the kernel trapped, and what the agent counted, compared.

use serde::Serialize;
use splitlock_common::{Event, Hook};

use super::{
    events::Results,
    plan::Detection,
    reading::{Places, Reading, Vm, candidates},
};
use crate::subjects::SubjectId;

/// How one comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All that was trapped was counted.
    Ok,
    /// There was nothing to count.
    NotTrapped,
    /// It would be tried.
    Planned,
    /// It was not tried.
    LeftOut,
    /// Something that should have been counted was not.
    Failed,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What is compared.
    pub step: &'static str,
    /// How many were made.
    pub made: Option<u64>,
    /// How many of them the kernel trapped, where the child can tell.
    pub trapped: Option<u64>,
    /// How many the agent shows.
    pub counted: Option<u64>,
    /// The hook that counts them here.
    pub hook: Option<&'static str>,
    /// How it ended.
    pub verdict: Verdict,
    /// Why; empty where there is nothing to say.
    pub reason: String,
}

/// What was made of one step, between two readings.
pub struct Evidence<'a> {
    /// Who made it.
    pub who: SubjectId,
    /// What it counted.
    pub results: &'a Results,
    /// Before it was made.
    pub before: &'a Reading,
    /// Afterwards.
    pub after: &'a Reading,
}

impl Line {
    /// One that would be tried.
    pub fn planned(step: &'static str, count: u64) -> Self {
        Self::new(step, None, Verdict::Planned, String::new()).counts(Some(count), None, None)
    }

    /// One that was not tried.
    pub fn left_out(step: &'static str, reason: String) -> Self {
        Self::new(step, None, Verdict::LeftOut, reason)
    }

    fn new(step: &'static str, hook: Option<Hook>, verdict: Verdict, reason: String) -> Self {
        Self {
            step,
            made: None,
            trapped: None,
            counted: None,
            hook: hook.map(Hook::name),
            verdict,
            reason,
        }
    }

    fn counts(self, made: Option<u64>, trapped: Option<u64>, counted: Option<u64>) -> Self {
        Self {
            made,
            trapped,
            counted,
            ..self
        }
    }
}

impl Evidence<'_> {
    /// Alignment checks of the child's own code.
    pub fn alignment_checks(&self, made: u64) -> Line {
        let trapped = self.results.find("bus_adraln").unwrap_or(0);
        let row = self.after.process(self.who);
        let counted = row.map_or(0, |row| row.alignment_checks);
        let hook = self.after.authority(Event::AlignmentCheck);
        let (verdict, reason) = if trapped == 0 && counted == 0 {
            let reason = "this CPU let the loads pass: it raises no #AC for them";
            (Verdict::NotTrapped, reason.to_owned())
        } else {
            self.compare(trapped, counted, hook, row.is_some(), "process", || {
                no_hook(self.after, Event::AlignmentCheck)
            })
        };
        Line::new("alignment checks", hook, verdict, reason).counts(
            Some(made),
            Some(trapped),
            Some(counted),
        )
    }

    /// Split locks of the child's own code.
    pub fn split_locks(&self, made: u64) -> Line {
        let signals = self.results.find("bus_adraln").unwrap_or(0);
        let row = self.after.process(self.who);
        let counted = row.map_or(0, |row| row.traps.iter().map(|trap| trap.count).sum());
        let detection = Detection::of(&self.after.host);
        let event = match (&detection, self.after.host.has("split_lock_detect")) {
            (Detection::Signals, true) => Event::UserSplitLockSigbus,
            (Detection::Signals, false) => Event::UserBusLockSigbus,
            (_, true) if self.after.host.detection_mode != "ratelimit" => {
                Event::UserSplitLockWarned
            }
            (_, _) => Event::UserBusLockWarned,
        };
        let hook = self.after.authority(event);
        let uncounted = || no_hook(self.after, event);
        // Only where it sends signals does the kernel tell the child.
        let mut trapped = Some(signals);
        let (verdict, reason) = match detection {
            Detection::Blind(why) if signals == 0 && counted == 0 => (Verdict::NotTrapped, why),
            Detection::Unknown if signals == 0 && counted == 0 => {
                let why = "none was counted, and whether this kernel detects them is not known";
                (Verdict::NotTrapped, why.to_owned())
            }
            Detection::Signals if signals < made => (
                Verdict::Failed,
                format!(
                    "the mode is fatal ({}), but SIGBUS came for {signals} of {made}",
                    self.after.host.detection_source
                ),
            ),
            // After a trap detection is off for a while, on some kernels for good.
            Detection::Reports if (1..=made).contains(&counted) => {
                trapped = None;
                let why = match made - counted {
                    0 => String::new(),
                    _ => "in warn mode the kernel does not detect each".to_owned(),
                };
                (Verdict::Ok, why)
            }
            Detection::Reports => {
                trapped = None;
                let reports =
                    |reading: &Reading| -> u64 { reading.kernel_log_reports.values().sum() };
                let (_, mut why) =
                    self.compare(made, counted, hook, row.is_some(), "process", uncounted);
                match reports(self.after).saturating_sub(reports(self.before)) {
                    0 => why += "; the kernel log has no report of them either",
                    new => why += &format!("; the kernel log reported {new} meanwhile"),
                }
                (Verdict::Failed, why)
            }
            _ => self.compare(signals, counted, hook, row.is_some(), "process", uncounted),
        };
        Line::new("split locks", hook, verdict, reason).counts(Some(made), trapped, Some(counted))
    }

    /// What a guest did: its alignment checks, its returns to the VMM, its exits.
    pub fn guest(&self, made: u64) -> [Line; 3] {
        let row = self.after.vm(self.who);
        [
            self.guest_alignment_checks(made),
            self.guest_returns(),
            self.guest_exits(made),
        ]
        .map(|line| match (row, self.after.tracked.get("vm")) {
            (None, Some(Places { limit: 0, .. })) => Line {
                verdict: Verdict::LeftOut,
                reason: "this agent is to show no VMs: --limit.vms is 0".to_owned(),
                ..line
            },
            _ => line,
        })
    }

    fn guest_alignment_checks(&self, made: u64) -> Line {
        let row = self.after.vm(self.who);
        let trapped = self.results.find("shutdown").unwrap_or(0);
        let counted = row.map_or(0, |row| row.ac_injected);
        let hook = self.after.authority(Event::AcInjected);
        let (verdict, reason) = if trapped == 0 && counted == 0 {
            let reason = "this CPU let the guest's loads pass: it raises no #AC for them";
            (Verdict::NotTrapped, reason.to_owned())
        } else {
            self.compare(trapped, counted, hook, row.is_some(), "vm", || {
                no_hook(self.after, Event::AcInjected)
            })
        };
        Line::new("guest's #AC", hook, verdict, reason).counts(
            Some(made),
            Some(trapped),
            Some(counted),
        )
    }

    fn guest_returns(&self) -> Line {
        const HOOK: Hook = Hook::KvmUserspaceExit;
        let row = self.after.vm(self.who);
        let made: u64 = self.results.iter().map(|(_, count)| count).sum();
        let shown: u64 = row.map_or(0, |row| row.userspace_exits.values().sum());
        let hook = self.after.is_attached(HOOK).then_some(HOOK);
        let (mut verdict, mut reason) = match self.unwanted(HOOK) {
            Some(why) => (Verdict::LeftOut, why),
            None => self.compare(made, shown, hook, row.is_some(), "vm", || {
                refusals(self.after, HOOK)
            }),
        };
        let differs = |row: &Vm| {
            self.results
                .iter()
                .find(|(reason, count)| {
                    row.userspace_exits.get(*reason).copied().unwrap_or(0) != *count
                })
                .map(|(reason, _)| reason.to_owned())
        };
        if verdict == Verdict::Ok
            && reason.is_empty()
            && let Some(name) = row.and_then(differs)
        {
            verdict = Verdict::Failed;
            reason = format!("the sum is right, but {name} differs");
        }
        Line::new("guest's returns", hook, verdict, reason).counts(Some(made), None, Some(shown))
    }

    /// Each run of the guest is at least one exit.
    fn guest_exits(&self, runs: u64) -> Line {
        const HOOK: Hook = Hook::KvmExit;
        let row = self.after.vm(self.who);
        let counted: u64 = row.map_or(0, |row| row.exits.values().sum());
        let hook = self.after.is_attached(HOOK).then_some(HOOK);
        let (verdict, reason) = match self.unwanted(HOOK) {
            Some(why) => (Verdict::LeftOut, why),
            None if counted >= runs => (Verdict::Ok, String::new()),
            None if counted == 0 && hook.is_some() && !has_hardware_driver() => {
                let why =
                    "KVM's driver here is neither kvm_intel nor kvm_amd, and tells of no exits";
                (Verdict::NotTrapped, why.to_owned())
            }
            None => self.compare(runs, counted, hook, row.is_some(), "vm", || {
                refusals(self.after, HOOK)
            }),
        };
        Line::new("guest's exits", hook, verdict, reason).counts(None, None, Some(counted))
    }

    /// Why this agent counts no exits on purpose: with `--kvm-exits=off` the hooks are ruled out, with
    /// `locks` one is attached and counts nothing.
    fn unwanted(&self, hook: Hook) -> Option<String> {
        let ruled_out = |hook| {
            self.after
                .probe(hook)
                .is_some_and(|row| row.refused.iter().any(|why| why.contains("--kvm-exits")))
        };
        let idle = self
            .after
            .probe(Hook::KvmUserspaceExit)
            .is_some_and(|row| row.via.is_some() && row.counts == "none");
        (ruled_out(hook) || idle).then(|| "this agent is to count no exits: --kvm-exits".to_owned())
    }

    /// Both sides, exactly, but for what the kernel says that it skipped.
    fn compare(
        &self,
        trapped: u64,
        counted: u64,
        hook: Option<Hook>,
        is_shown: bool,
        kind: &str,
        why_no_hook: impl Fn() -> String,
    ) -> (Verdict, String) {
        if counted == trapped {
            return (Verdict::Ok, String::new());
        }
        let Some(hook) = hook else {
            return (Verdict::Failed, why_no_hook());
        };
        let missed = self
            .after
            .missed(hook)
            .saturating_sub(self.before.missed(hook));
        if counted < trapped && trapped - counted <= missed {
            let why = format!("the kernel skipped {missed} runs of {}", hook.name());
            return (Verdict::Ok, why);
        }
        if !is_shown && let Some(Places { used, limit }) = self.after.tracked.get(kind) {
            let flag = if kind == "vm" { "vms" } else { "processes" };
            if *limit == 0 {
                let why = format!("this agent is to show none: --limit.{flag} is 0");
                return (Verdict::LeftOut, why);
            }
            if used >= limit {
                let why = format!(
                    "the agent has no place for it, {used} of {limit} are taken: raise --limit.{flag}"
                );
                return (Verdict::Failed, why);
            }
        }
        let why = format!("{} counted {counted} of {trapped}", hook.name());
        (Verdict::Failed, why)
    }
}

/// Hooks that somebody took away although others would have had them.
pub fn taken_away(reading: &Reading) -> Line {
    let names: Vec<&str> = reading
        .probes
        .iter()
        .filter(|row| row.via.is_none())
        .filter(|row| row.refused.iter().any(|why| why.contains("--probe")))
        .map(|row| row.probe.as_str())
        .collect();
    let (verdict, reason) = if names.is_empty() {
        (Verdict::Ok, String::new())
    } else {
        let why = format!("taken away by --probe: {}", names.join(", "));
        (Verdict::Failed, why)
    };
    Line::new("hooks", None, verdict, reason)
}

/// Why nothing counts an event.
fn no_hook(reading: &Reading, event: Event) -> String {
    let each: Vec<String> = candidates(event)
        .map(|hook| refusals(reading, hook))
        .collect();
    each.join("; ")
}

/// Why a hook is not attached.
fn refusals(reading: &Reading, hook: Hook) -> String {
    let refused = reading
        .probe(hook)
        .map_or_else(String::new, |row| row.refused.join(", "));
    format!("{} is not attached ({refused})", hook.name())
}

/// Whether KVM uses the CPU's own virtualization, whose drivers fire `kvm_exit`.
fn has_hardware_driver() -> bool {
    ["kvm_intel", "kvm_amd"]
        .iter()
        .any(|name| std::path::Path::new("/sys/module").join(name).exists())
}

#[cfg(test)]
mod tests;
