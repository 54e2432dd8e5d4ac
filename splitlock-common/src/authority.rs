//! Who counts what: for each kind of event exactly one hook counts, the best that is attached.

use crate::trap::Event;

/// A place in the kernel where events are seen; the number is its index in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Hook {
    /// Tracepoint `signal:signal_generate`.
    SignalGenerate = 0,
    /// Tracepoint `kvm:kvm_inj_exception`.
    KvmInjException = 1,
    /// Tracepoint `kvm:kvm_userspace_exit`.
    KvmUserspaceExit = 2,
    /// Tracepoint `kvm:kvm_exit`.
    KvmExit = 3,
    /// Function `handle_user_split_lock`.
    HandleUserSplitLock = 4,
    /// Function `handle_guest_split_lock`.
    HandleGuestSplitLock = 5,
    /// Function `handle_bus_lock`.
    HandleBusLock = 6,
    /// Function `split_lock_warn`: the mitigation's delay happens inside.
    SplitLockWarn = 7,
    /// The messages of `/dev/kmsg`.
    KernelLog = 8,
}

impl Hook {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::SignalGenerate,
        Self::KvmInjException,
        Self::KvmUserspaceExit,
        Self::KvmExit,
        Self::HandleUserSplitLock,
        Self::HandleGuestSplitLock,
        Self::HandleBusLock,
        Self::SplitLockWarn,
        Self::KernelLog,
    ];

    /// The label value of `probe`: the kernel's own name where it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SignalGenerate => "signal_generate",
            Self::KvmInjException => "kvm_inj_exception",
            Self::KvmUserspaceExit => "kvm_userspace_exit",
            Self::KvmExit => "kvm_exit",
            Self::HandleUserSplitLock => "handle_user_split_lock",
            Self::HandleGuestSplitLock => "handle_guest_split_lock",
            Self::HandleBusLock => "handle_bus_lock",
            Self::SplitLockWarn => "split_lock_warn",
            Self::KernelLog => "kernel_log",
        }
    }
}

/// A set of hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookSet(u32);

impl HookSet {
    /// No hook.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// This set and `hook`.
    #[must_use]
    pub const fn with(self, hook: Hook) -> Self {
        Self(self.0 | 1 << hook as u32)
    }

    /// Whether `hook` is in it.
    pub const fn contains(self, hook: Hook) -> bool {
        self.0 & (1 << hook as u32) != 0
    }
}

/// A set of events, as the maps carry it: bit `n` is the event with number `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct EventSet(u32);

impl EventSet {
    /// No event.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// The set with these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether `event` is in it.
    #[inline(always)]
    pub const fn contains(self, event: Event) -> bool {
        self.0 & (1 << event as u32) != 0
    }

    fn insert(&mut self, event: Event) {
        self.0 |= 1 << event as u32;
    }
}

/// Which of the two exceptions this host arms for user code. Where a CPU has both, only `#AC`
/// is armed, but in ratelimit mode only `#DB` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Armed {
    /// Not known, or neither: a lock-like SIGBUS is then taken for a split lock's.
    #[default]
    Unknown = 0,
    /// `#AC` on split locks.
    SplitLock = 1,
    /// `#DB` on bus locks.
    BusLock = 2,
}

impl Armed {
    /// The value with this number, as the BPF programs get it.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::SplitLock,
            2 => Self::BusLock,
            _ => Self::Unknown,
        }
    }
}

/// The hooks that can count an event, best first.
///
/// Missing on purpose: `split_lock_warn` (runs inside the other functions), `KVM_EXIT_EXCEPTION`
/// (has other causes) and the exit on `#AC` (what KVM does next decides).
/// `signal_generate` is the only witness of a fatal bus lock where `handle_bus_lock` has no rung,
/// and believed only where `#DB` alone is armed: [`crate::classify::sigbus`] never gives
/// [`Event::UserBusLockSigbus`] elsewhere.
const fn candidates(event: Event) -> &'static [Hook] {
    match event {
        Event::UserSplitLockWarned => &[Hook::HandleUserSplitLock, Hook::KernelLog],
        Event::UserSplitLockSigbus | Event::AlignmentCheck => {
            &[Hook::HandleUserSplitLock, Hook::SignalGenerate]
        }
        Event::UserBusLockWarned => &[Hook::HandleBusLock, Hook::KernelLog],
        Event::UserBusLockSigbus => &[Hook::HandleBusLock, Hook::SignalGenerate],
        Event::UserBusLockThrottled => &[Hook::HandleBusLock],
        Event::GuestSplitLockWarned => &[Hook::HandleGuestSplitLock, Hook::KernelLog],
        Event::GuestSplitLockSigbus => &[Hook::HandleGuestSplitLock, Hook::SignalGenerate],
        Event::GuestBusLockReported => &[Hook::KvmExit, Hook::KvmUserspaceExit],
        Event::AcInjected => &[Hook::KvmInjException],
    }
}

/// The hook that counts `event` when `attached` are attached; `None` where nobody can.
pub fn authority(event: Event, attached: HookSet) -> Option<Hook> {
    candidates(event)
        .iter()
        .copied()
        .find(|hook| attached.contains(*hook))
}

/// What each hook counts, indexed by the hook's number.
pub fn authorities(attached: HookSet) -> [EventSet; Hook::COUNT] {
    let mut table = [EventSet::empty(); Hook::COUNT];
    for event in Event::ALL {
        if let Some(hook) = authority(event, attached) {
            table[hook as usize].insert(event);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(hooks: &[Hook]) -> HookSet {
        hooks
            .iter()
            .fold(HookSet::empty(), |set, hook| set.with(*hook))
    }

    #[test]
    fn numbers_are_positions() {
        for (position, hook) in Hook::ALL.iter().enumerate() {
            assert_eq!(*hook as usize, position);
        }
    }

    #[test]
    fn no_event_is_counted_by_two_hooks_whatever_is_attached() {
        for bits in 0..1 << Hook::COUNT {
            let attached = HookSet(bits);
            let table = authorities(attached);
            for event in Event::ALL {
                let counting: Vec<Hook> = Hook::ALL
                    .into_iter()
                    .filter(|hook| table[*hook as usize].contains(event))
                    .collect();
                assert!(counting.len() <= 1, "{event:?}: {counting:?}");
                assert!(counting.iter().all(|hook| attached.contains(*hook)));
                let possible = candidates(event)
                    .iter()
                    .any(|hook| attached.contains(*hook));
                assert_eq!(counting.len() == 1, possible, "{event:?} {attached:?}");
            }
        }
    }

    #[test]
    fn all_hooks_together_count_by_the_functions() {
        let all = set(&Hook::ALL);
        let expected = [
            (Event::UserSplitLockWarned, Hook::HandleUserSplitLock),
            (Event::UserSplitLockSigbus, Hook::HandleUserSplitLock),
            (Event::AlignmentCheck, Hook::HandleUserSplitLock),
            (Event::UserBusLockWarned, Hook::HandleBusLock),
            (Event::UserBusLockSigbus, Hook::HandleBusLock),
            (Event::UserBusLockThrottled, Hook::HandleBusLock),
            (Event::GuestSplitLockWarned, Hook::HandleGuestSplitLock),
            (Event::GuestSplitLockSigbus, Hook::HandleGuestSplitLock),
            (Event::GuestBusLockReported, Hook::KvmExit),
            (Event::AcInjected, Hook::KvmInjException),
        ];
        for (event, hook) in expected {
            assert_eq!(authority(event, all), Some(hook), "{event:?}");
        }
    }

    #[test]
    fn tracepoints_alone_leave_warnings_to_the_log() {
        let stable = set(&[
            Hook::SignalGenerate,
            Hook::KvmInjException,
            Hook::KvmUserspaceExit,
            Hook::KernelLog,
        ]);
        let expected = [
            (Event::UserSplitLockWarned, Some(Hook::KernelLog)),
            (Event::UserSplitLockSigbus, Some(Hook::SignalGenerate)),
            (Event::AlignmentCheck, Some(Hook::SignalGenerate)),
            (Event::UserBusLockWarned, Some(Hook::KernelLog)),
            (Event::UserBusLockSigbus, Some(Hook::SignalGenerate)),
            (Event::UserBusLockThrottled, None),
            (Event::GuestSplitLockWarned, Some(Hook::KernelLog)),
            (Event::GuestSplitLockSigbus, Some(Hook::SignalGenerate)),
            (Event::GuestBusLockReported, Some(Hook::KvmUserspaceExit)),
            (Event::AcInjected, Some(Hook::KvmInjException)),
        ];
        for (event, hook) in expected {
            assert_eq!(authority(event, stable), hook, "{event:?}");
        }
    }

    #[test]
    fn the_delay_hook_never_counts() {
        for bits in 0..1 << Hook::COUNT {
            let table = authorities(HookSet(bits));
            assert_eq!(table[Hook::SplitLockWarn as usize], EventSet::empty());
        }
    }
}
