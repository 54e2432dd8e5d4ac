//! What the count of an attached hook means on a kernel: the `counts` label.

use splitlock_common::{EventSet, Hook, Mode};

use super::Probe;

/// What a count means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// One for each trap that the hook stands for.
    EveryTrap,
    /// At least this many.
    LowerBound,
    /// About one for each thread that ever trapped.
    FirstPerThread,
    /// It is attached for detail and counts nothing here.
    Nothing,
}

impl Counts {
    /// The label value of `counts`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EveryTrap => "every_trap",
            Self::LowerBound => "lower_bound",
            Self::FirstPerThread => "first_per_thread",
            Self::Nothing => "none",
        }
    }
}

/// Before this the warn mode leaves detection off for the thread that trapped (`TIF_SLD` is never
/// cleared); from it on, off for the core for two jiffies (b041b525dab9, "x86/split_lock: Make
/// life miserable for split lockers").
const PENALTY: (u32, u32) = (5, 19);

/// What an attached hook counts on a kernel of this version in this mode.
pub fn counts(probe: &Probe, kernel: Option<(u32, u32)>, mode: Mode) -> Counts {
    if probe.authority == EventSet::empty() {
        return if probe.counts_exits {
            Counts::EveryTrap
        } else {
            Counts::Nothing
        };
    }
    match probe.hook {
        // One signal, one exit, one exception, one `#DB` for each.
        Hook::SignalGenerate
        | Hook::KvmInjException
        | Hook::KvmUserspaceExit
        | Hook::KvmExit
        | Hook::HandleBusLock => Counts::EveryTrap,
        Hook::HandleUserSplitLock | Hook::HandleGuestSplitLock => match (mode, kernel) {
            // Detection stays on: the offender gets a signal instead.
            (Mode::Fatal, _) => Counts::EveryTrap,
            (_, Some(version)) if version >= PENALTY => Counts::LowerBound,
            _ => Counts::FirstPerThread,
        },
        // Ten messages per five seconds; of split locks from 5.19 on one per thread at most
        // (`reported_split_lock`).
        Hook::KernelLog => Counts::LowerBound,
        Hook::SplitLockWarn => Counts::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use splitlock_common::{HookSet, authority::authorities};

    fn probe(hook: Hook, attached: HookSet, counts_exits: bool) -> Probe {
        Probe {
            hook,
            via: None,
            authority: authorities(attached)[hook as usize],
            counts_exits,
            refusals: vec![],
            detached: None,
        }
    }

    #[test]
    fn each_hook_with_all_attached() {
        let all = Hook::ALL
            .iter()
            .fold(HookSet::empty(), |set, hook| set.with(*hook));
        let in_mode = |hook: Hook, kernel, mode| counts(&probe(hook, all, false), kernel, mode);
        let of = |hook, kernel| in_mode(hook, kernel, Mode::Warn);
        let new = Some((6, 18));
        assert_eq!(of(Hook::HandleUserSplitLock, new), Counts::LowerBound);
        assert_eq!(
            of(Hook::HandleUserSplitLock, Some((5, 18))),
            Counts::FirstPerThread
        );
        assert_eq!(of(Hook::HandleGuestSplitLock, None), Counts::FirstPerThread);
        for kernel in [new, Some((5, 10))] {
            assert_eq!(
                in_mode(Hook::HandleUserSplitLock, kernel, Mode::Fatal),
                Counts::EveryTrap
            );
        }
        assert_eq!(
            in_mode(Hook::HandleGuestSplitLock, new, Mode::Unknown),
            Counts::LowerBound
        );
        assert_eq!(of(Hook::HandleBusLock, new), Counts::EveryTrap);
        assert_eq!(of(Hook::KvmExit, new), Counts::EveryTrap);
        assert_eq!(of(Hook::KvmUserspaceExit, new), Counts::Nothing);
        let returns = probe(Hook::KvmUserspaceExit, all, true);
        assert_eq!(counts(&returns, new, Mode::Warn), Counts::EveryTrap);
        assert_eq!(of(Hook::SignalGenerate, new), Counts::Nothing);
        assert_eq!(of(Hook::KernelLog, new), Counts::Nothing);
        assert_eq!(of(Hook::SplitLockWarn, new), Counts::Nothing);
    }

    #[test]
    fn the_log_tells_of_some_traps() {
        let log = HookSet::empty().with(Hook::KernelLog);
        let probe = probe(Hook::KernelLog, log, false);
        let found = counts(&probe, Some((6, 1)), Mode::Warn);
        assert_eq!(found, Counts::LowerBound);
    }
}
