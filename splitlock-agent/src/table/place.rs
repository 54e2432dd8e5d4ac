//! A subject's place in a bounded set.

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

/// A bounded set: how many places are held.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    used: usize,
    limit: usize,
}

impl Places {
    /// An empty set.
    pub const fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    /// A set that somebody else keeps.
    pub const fn with_used(used: usize, limit: usize) -> Self {
        Self { used, limit }
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
    pub fn take_back(&mut self, place: Place) {
        if place == Place::Held {
            self.used -= 1;
        }
    }

    /// Places held.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Places there are.
    pub const fn limit(&self) -> usize {
        self.limit
    }
}
