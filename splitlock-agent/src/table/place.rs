//! A subject's place in a bounded set.

use std::collections::BTreeSet;

use super::snapshot::Fullness;
use crate::subjects::SubjectId;

/// Whether a subject has series of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// It has not done anything to be in the set for.
    #[default]
    None,
    /// It is one of the set.
    Held,
    /// The set was full when it came. If it was when its first lock was seen, its locks are in the
    /// overflow family, from the first to the last, also after a place becomes free.
    Overflow,
}

/// A bounded set: how many places are held, and who would give up his.
#[derive(Clone, Debug)]
pub struct Places {
    used: usize,
    limit: usize,
    /// Members that would give up their place, who first.
    yielding: BTreeSet<(Claim, SubjectId)>,
}

/// How good a claim to its place a subject has, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// It has ended, without locks.
    Ended,
    /// It lives, and nothing was counted for it.
    Nothing,
    /// Something was counted for it, but no locks.
    Counts,
    /// It has locks: it gives its place to nobody.
    Locks,
}

impl Places {
    /// An empty set.
    pub const fn new(limit: usize) -> Self {
        Self {
            used: 0,
            limit,
            yielding: BTreeSet::new(),
        }
    }

    /// Whether no place is free.
    pub const fn is_full(&self) -> bool {
        self.used >= self.limit
    }

    /// Gives a place, or one in the overflow.
    pub fn give(&mut self) -> Place {
        if self.is_full() {
            Place::Overflow
        } else {
            self.used += 1;
            Place::Held
        }
    }

    /// Takes back what a subject held.
    pub fn take_back(&mut self, id: SubjectId, place: Place) {
        if place == Place::Held {
            self.used -= 1;
        }
        self.note(id, None);
    }

    /// Notes a member's claim, or that it is none.
    pub fn note(&mut self, id: SubjectId, claim: Option<Claim>) {
        for claim in [Claim::Ended, Claim::Nothing, Claim::Counts] {
            self.yielding.remove(&(claim, id));
        }
        if let Some(claim) = claim.filter(|claim| *claim < Claim::Locks) {
            self.yielding.insert((claim, id));
        }
    }

    /// Who gives up his place to a newcomer with this claim: whoever has a worse one.
    pub fn yielding(&self, newcomer: Claim) -> Option<SubjectId> {
        let (claim, id) = self.yielding.first()?;
        (*claim < newcomer).then_some(*id)
    }

    /// How full the set is.
    pub const fn fullness(&self) -> Fullness {
        Fullness {
            used: self.used as u64,
            limit: self.limit as u64,
        }
    }
}
