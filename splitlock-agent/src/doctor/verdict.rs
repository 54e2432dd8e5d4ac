//! The answer: would this host notice a split lock?

use serde::Serialize;
use splitlock_common::Armed;

use super::{
    facts::Facts,
    findings::{Finding, Severity},
};

/// The answer in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A lock of a process would be noticed, and of a guest where there may be any.
    Yes,
    /// It would be noticed, but less well than it could.
    Degraded,
    /// Of one origin, and of the other not.
    Partly,
    /// That cannot be told.
    Unknown,
    /// It would not be noticed, or the agent cannot work here.
    No,
}

impl Answer {
    /// For scripts: 0 for a clear yes, 2 for a clear no.
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::Degraded | Self::Partly | Self::Unknown => 1,
            Self::No => 2,
        }
    }
}

/// The answer, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The answer.
    pub answer: Answer,
    /// It in words.
    pub sentence: String,
    /// The exit status that goes with it.
    pub exit_status: u8,
    /// Whether a process's lock would be noticed; `None` where that cannot be told.
    pub user: Option<bool>,
    /// Whether a guest's would; also told where there are no guests now.
    pub guest: Option<bool>,
    /// Whether there may be guests.
    pub runs_guests: bool,
}

/// Weighs facts and findings.
pub fn judge(facts: &Facts, findings: &[Finding]) -> Verdict {
    let has = |severity| findings.iter().any(|found| found.severity == severity);
    let runs_guests = facts.kvm.runs_guests();
    let user = facts
        .detection
        .sees_user
        .filter(|sees| !(*sees && is_arming_doubtful(facts)));
    let guest = facts.detection.sees_guest;
    let answer = if has(Severity::Critical) {
        Answer::No
    } else {
        match (user, guest, runs_guests) {
            (Some(false), Some(false), _) | (Some(false), _, false) => Answer::No,
            (None, _, _) | (_, None, true) => Answer::Unknown,
            (Some(false), Some(true), true) | (Some(true), Some(false), true) => Answer::Partly,
            (Some(true), ..) if has(Severity::Warning) => Answer::Degraded,
            (Some(true), ..) => Answer::Yes,
        }
    };
    let blind = (user, guest) == (Some(false), Some(false));
    Verdict {
        answer,
        sentence: sentence(answer, user, guest, runs_guests, blind),
        exit_status: answer.exit_status(),
        user,
        guest,
        runs_guests,
    }
}

/// From here on the kernel turns on bus-lock detection of all makers' CPUs ("x86/bus_lock: Add
/// support for AMD"); before, only `init_intel` called `bus_lock_init`, though `sld_state` says warn on
/// any CPU that has the flag.
const ALL_MAKERS: (u32, u32) = (6, 13);

/// Whether the mode says that bus locks are trapped where the kernel may not have turned that on.
pub fn is_arming_doubtful(facts: &Facts) -> bool {
    let is_able = facts.kernel.version >= Some(ALL_MAKERS)
        || facts
            .kernel
            .abilities
            .is_some_and(|abilities| abilities.arms_all_makers);
    facts.detection.armed == Armed::BusLock
        && facts.cpu.vendor != "GenuineIntel"
        && !is_able
        && facts.detection.sees_user != Some(false)
}

fn sentence(
    answer: Answer,
    user: Option<bool>,
    guest: Option<bool>,
    runs_guests: bool,
    blind: bool,
) -> String {
    let whose = if runs_guests {
        "of a process and of a guest"
    } else {
        "of a process (it runs no guests)"
    };
    match answer {
        Answer::Yes => format!("Yes: this host would notice a split lock {whose}."),
        Answer::Degraded => {
            format!("Yes, but degraded: this host would notice one {whose}.")
        }
        Answer::Partly => match user {
            Some(true) => {
                "Partly: this host would notice a split lock of a process, not of a guest."
            }
            _ => "Partly: this host would notice a bus lock of a guest, not of a process.",
        }
        .to_owned(),
        Answer::Unknown => {
            let word = |sees| match sees {
                Some(true) => "yes",
                Some(false) => "no",
                None => "unknown",
            };
            let guests = if runs_guests {
                format!(", guest: {}", word(guest))
            } else {
                String::new()
            };
            format!(
                "Unknown whether a split lock is noticed here (process: {}{guests}).",
                word(user)
            )
        }
        Answer::No if blind => "No: this host would not notice a split lock.".to_owned(),
        Answer::No => "No: the agent could not notice a split lock here.".to_owned(),
    }
}
