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
    /// Members without locks: whether it lives, who. Those that have ended come first.
    without_locks: BTreeSet<(bool, SubjectId)>,
}

impl Places {
    /// An empty set.
    pub const fn new(limit: usize) -> Self {
        Self {
            used: 0,
            limit,
            without_locks: BTreeSet::new(),
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

    /// Notes whether a member is one without locks, and if so, whether it lives.
    pub fn note(&mut self, id: SubjectId, without_locks: Option<bool>) {
        for lives in [false, true] {
            self.without_locks.remove(&(lives, id));
        }
        if let Some(lives) = without_locks {
            self.without_locks.insert((lives, id));
        }
    }

    /// Who gives up his place to a newcomer: one without locks yields to one with locks, and if it
    /// has ended, to any.
    pub fn yielding(&self, newcomer_has_locks: bool) -> Option<SubjectId> {
        let (lives, id) = self.without_locks.first()?;
        (!lives || newcomer_has_locks).then_some(*id)
    }

    /// How full the set is.
    pub const fn fullness(&self) -> Fullness {
        Fullness {
            used: self.used as u64,
            limit: self.limit as u64,
        }
    }
}
