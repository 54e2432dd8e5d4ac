//! The hooks: a catalogue of ways to attach them, a pure plan for a host, and the attaching.

use splitlock_common::{EventSet, Hook};

pub mod attach;
pub mod catalogue;
pub mod choice;
pub mod cost;
mod kernel_btf;
pub mod meaning;
pub mod overhead;
pub mod plan;
pub mod programs;

use catalogue::Via;
use plan::Refusal;

/// How one hook ended up.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The hook.
    pub hook: Hook,
    /// How it is attached; `None` where no rung held.
    pub via: Option<Via>,
    /// The events that it counts.
    pub authority: EventSet,
    /// Whether it counts exits, which are no traps.
    pub counts_exits: bool,
    /// The ways that were refused, best first: by the plan or by the kernel; at last the way that it
    /// was attached in, if it was taken off since.
    pub refusals: Vec<Refusal>,
    /// Why it was taken off while the agent ran.
    pub detached: Option<Detached>,
}

/// Why a hook was taken off while the agent ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// The hooks cost more than `--max-overhead` allows, and this one most.
    Overhead,
    /// SIGUSR1 asked for it.
    Request,
}

impl Detached {
    /// The label value of `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overhead => "overhead",
            Self::Request => "request",
        }
    }
}
