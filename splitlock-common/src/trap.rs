//! The taxonomy: what happened, to whom, and what the kernel did about it.

/// Which mechanism noticed the locked access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trap {
    /// `#AC`: a locked access crossed a cache line, trapped before it ran.
    SplitLock,
    /// `#DB` or a bus-lock VM exit: the bus was locked, noticed after the instruction.
    BusLock,
}

impl Trap {
    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SplitLock => "split_lock",
            Self::BusLock => "bus_lock",
        }
    }
}

/// What the kernel did about a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Let go on, after a delay where the mitigation is on.
    Warned,
    /// SIGBUS was sent; the process (for a guest: the VMM) survives only with a handler.
    Sigbus,
    /// A bus-lock VM exit, handed to the VMM, which may throttle the guest.
    Reported,
    /// Delayed by the ratelimit mode.
    Throttled,
}

impl Outcome {
    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warned => "warned",
            Self::Sigbus => "sigbus",
            Self::Reported => "reported",
            Self::Throttled => "throttled",
        }
    }
}

/// Whose code made the locked access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The process's own code, a VMM's own threads included.
    User,
    /// Code inside a VM.
    Guest,
}

impl Origin {
    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Guest => "guest",
        }
    }
}

/// A trapped lock: one valid combination of the three labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lock {
    /// Whose code.
    pub origin: Origin,
    /// Which mechanism.
    pub trap: Trap,
    /// What the kernel did.
    pub outcome: Outcome,
}

/// Everything that is counted per subject; the number is the index into the ledger's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Event {
    /// User `#AC`, let go on.
    UserSplitLockWarned = 0,
    /// User `#AC`, SIGBUS sent.
    UserSplitLockSigbus = 1,
    /// User bus lock `#DB`, let go on.
    UserBusLockWarned = 2,
    /// User bus lock `#DB`, SIGBUS sent.
    UserBusLockSigbus = 3,
    /// User bus lock `#DB`, delayed by the ratelimit mode.
    UserBusLockThrottled = 4,
    /// Guest `#AC` that the host handled, the guest went on.
    GuestSplitLockWarned = 5,
    /// Guest `#AC` that the host answered with SIGBUS to the VMM.
    GuestSplitLockSigbus = 6,
    /// Guest bus lock, seen as a VM exit.
    GuestBusLockReported = 7,
    /// An alignment check that the process asked for by EFLAGS.AC. Not a lock.
    AlignmentCheck = 8,
    /// An `#AC` that KVM handed to the guest. Not a lock the host handled.
    AcInjected = 9,
}

impl Event {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::UserSplitLockWarned,
        Self::UserSplitLockSigbus,
        Self::UserBusLockWarned,
        Self::UserBusLockSigbus,
        Self::UserBusLockThrottled,
        Self::GuestSplitLockWarned,
        Self::GuestSplitLockSigbus,
        Self::GuestBusLockReported,
        Self::AlignmentCheck,
        Self::AcInjected,
    ];

    /// The event with this number, as a record carries it.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The index into the ledger's counters.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The labels of a trapped lock; `None` for an event that is no lock.
    pub const fn lock(self) -> Option<Lock> {
        use Origin::{Guest, User};
        use Outcome::{Reported, Sigbus, Throttled, Warned};
        use Trap::{BusLock, SplitLock};
        let (origin, trap, outcome) = match self {
            Self::UserSplitLockWarned => (User, SplitLock, Warned),
            Self::UserSplitLockSigbus => (User, SplitLock, Sigbus),
            Self::UserBusLockWarned => (User, BusLock, Warned),
            Self::UserBusLockSigbus => (User, BusLock, Sigbus),
            Self::UserBusLockThrottled => (User, BusLock, Throttled),
            Self::GuestSplitLockWarned => (Guest, SplitLock, Warned),
            Self::GuestSplitLockSigbus => (Guest, SplitLock, Sigbus),
            Self::GuestBusLockReported => (Guest, BusLock, Reported),
            Self::AlignmentCheck | Self::AcInjected => return None,
        };
        Some(Lock {
            origin,
            trap,
            outcome,
        })
    }

    /// Whether it is a trapped lock.
    #[inline(always)]
    pub const fn is_lock(self) -> bool {
        !matches!(self, Self::AlignmentCheck | Self::AcInjected)
    }

    /// Whether it is told of the VM (else of the process) that the thread belongs to.
    #[inline(always)]
    pub const fn is_guest(self) -> bool {
        matches!(
            self,
            Self::GuestSplitLockWarned
                | Self::GuestSplitLockSigbus
                | Self::GuestBusLockReported
                | Self::AcInjected
        )
    }

    /// A short name for logs and stories.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserSplitLockWarned => "user_split_lock_warned",
            Self::UserSplitLockSigbus => "user_split_lock_sigbus",
            Self::UserBusLockWarned => "user_bus_lock_warned",
            Self::UserBusLockSigbus => "user_bus_lock_sigbus",
            Self::UserBusLockThrottled => "user_bus_lock_throttled",
            Self::GuestSplitLockWarned => "guest_split_lock_warned",
            Self::GuestSplitLockSigbus => "guest_split_lock_sigbus",
            Self::GuestBusLockReported => "guest_bus_lock_reported",
            Self::AlignmentCheck => "alignment_check",
            Self::AcInjected => "ac_injected",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_the_positions_in_all() {
        for (position, event) in Event::ALL.iter().enumerate() {
            assert_eq!(event.index(), position);
            assert_eq!(Event::from_number(position as u32), Some(*event));
        }
        assert_eq!(Event::from_number(Event::COUNT as u32), None);
        assert_eq!(Event::from_number(u32::MAX), None);
    }

    #[test]
    fn each_lock_has_its_own_labels_and_its_origin_agrees() {
        let locks: Vec<Lock> = Event::ALL.iter().filter_map(|event| event.lock()).collect();
        assert_eq!(locks.len(), 8);
        assert_eq!(locks.iter().collect::<BTreeSet<_>>().len(), 8);
        for event in Event::ALL {
            assert_eq!(event.lock().is_some(), event.is_lock(), "{event:?}");
            if let Some(lock) = event.lock() {
                assert_eq!(lock.origin == Origin::Guest, event.is_guest(), "{event:?}");
            }
        }
    }

    #[test]
    fn what_is_no_lock_has_no_labels() {
        assert_eq!(Event::AlignmentCheck.lock(), None);
        assert_eq!(Event::AcInjected.lock(), None);
    }
}
