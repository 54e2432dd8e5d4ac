//! From facts to findings: what is short here, what that costs, and what mends it. Pure.

mod attaching;
mod detection;
mod guests;
mod running;

use serde::Serialize;

use super::facts::Facts;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// With it no lock is noticed.
    Critical,
    /// With it less is noticed, or less well.
    Warning,
    /// Worth knowing; as good as this mode, this kernel or this CPU gets.
    Note,
}

impl Severity {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One shortcoming.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A name that stays the same.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What that costs.
    pub costs: String,
    /// The command that mends it, as root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What to do where no command does it, or beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn new(
        id: &'static str,
        severity: Severity,
        what: impl Into<String>,
        costs: impl Into<String>,
    ) -> Self {
        Self {
            id,
            severity,
            what: what.into(),
            costs: costs.into(),
            command: None,
            advice: None,
        }
    }

    fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// All of them, the worst first.
pub fn find(facts: &Facts) -> Vec<Finding> {
    let mut found = detection::find(facts);
    found.extend(attaching::find(facts));
    found.extend(guests::find(facts));
    found.extend(running::find(facts));
    found.sort_by_key(|finding| finding.severity);
    found
}

/// What starts the agent anew, so that it finds what was not there before.
const RESTART: &str = "systemctl restart splitlock-agent";
