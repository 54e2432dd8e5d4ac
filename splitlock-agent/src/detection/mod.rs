//! Would this host notice a lock at all, and has that changed?

use splitlock_common::{Armed, Event, HookSet, Mode, authority::authority, ledger::Settings};

pub mod evidence;

use evidence::{Detection, Evidence, Source};

/// Keeps an eye on the mode and on the mitigation.
#[derive(Debug)]
pub struct Monitor {
    evidence: Evidence,
    attached: HookSet,
    detection: Detection,
    mitigation: Option<bool>,
    changes: u64,
}

impl Monitor {
    /// Begins with what is known at the start.
    pub fn new(evidence: Evidence, mitigation: Option<bool>, attached: HookSet) -> Self {
        let detection = evidence.weigh();
        Self {
            evidence,
            attached,
            detection,
            mitigation,
            changes: 0,
        }
    }

    /// The mode, as far as it is known.
    pub const fn detection(&self) -> Detection {
        self.detection
    }

    /// Whether the mitigation is on, where the kernel has it.
    pub const fn mitigation(&self) -> Option<bool> {
        self.mitigation
    }

    /// How often the mode or the mitigation was seen to change.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// What the programs are to know.
    pub const fn settings(&self) -> Settings {
        let mode = match self.detection {
            // The kernel's own variable says "off".
            Detection {
                mode: Mode::Unsupported,
                source: Source::Memory,
                ..
            } => Mode::Off,
            Detection { mode, .. } => mode,
        };
        Settings {
            mode: mode as u32,
            armed: self.detection.armed as u32,
        }
    }

    /// Takes in a reading of the kernel's `sld_state`. A better source is no change, another value
    /// of the same source is.
    pub fn read_memory(&mut self, value: u32) {
        self.evidence.memory = Some(value);
        let before = self.detection;
        self.detection = self.evidence.weigh();
        if before.source == Source::Memory && before.mode != self.detection.mode {
            self.changes += 1;
        }
    }

    /// Other hooks are attached from now on.
    pub const fn set_attached(&mut self, attached: HookSet) {
        self.attached = attached;
    }

    /// Takes in a reading of the mitigation.
    pub fn read_mitigation(&mut self, mitigation: Option<bool>) {
        if self.mitigation != mitigation {
            self.changes += 1;
            self.mitigation = mitigation;
        }
    }

    /// Whether a lock of a process's own code would be noticed; `None` where the mode is unknown.
    pub fn sees_user(&self) -> Option<bool> {
        use Armed::{BusLock, SplitLock};
        let cpu = self.evidence.cpu?;
        let Detection { mode, armed, .. } = self.detection;
        let event = match (mode, armed) {
            (Mode::Unknown, _) => return None,
            (Mode::Off | Mode::Unsupported, _) => return Some(false),
            (Mode::Warn, SplitLock) => Event::UserSplitLockWarned,
            (Mode::Fatal, SplitLock) => Event::UserSplitLockSigbus,
            // Below the limit ratelimit mode lets a lock go as warn mode does.
            (Mode::Warn | Mode::Ratelimit, BusLock) => Event::UserBusLockWarned,
            (Mode::Fatal, BusLock) => Event::UserBusLockSigbus,
            _ => return Some(false),
        };
        let sees = cpu.any() && self.is_counted(event);
        if sees && armed == BusLock && self.evidence.arming_is_doubtful {
            return None;
        }
        Some(sees)
    }

    /// Whether a guest's lock would be noticed; `None` where the mode is unknown.
    ///
    /// Only Intel's `#AC` reaches the host from a guest by itself, in warn and fatal mode. Bus
    /// locks of a guest are seen if its VMM asked KVM for such exits, which no state of the host
    /// tells: that one was `reported` does.
    pub fn sees_guest(&self, reported: bool) -> Option<bool> {
        if reported {
            return Some(true);
        }
        let cpu = self.evidence.cpu?;
        let event = match self.detection.mode {
            Mode::Unknown => return None,
            Mode::Warn => Event::GuestSplitLockWarned,
            Mode::Fatal => Event::GuestSplitLockSigbus,
            Mode::Off | Mode::Ratelimit | Mode::Unsupported => return Some(false),
        };
        Some(cpu.split_lock_detect && self.is_counted(event))
    }

    fn is_counted(&self, event: Event) -> bool {
        authority(event, self.attached).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cpu::CpuFeatures;
    use splitlock_common::Hook;

    fn monitor(split: bool, bus: bool, parameter: &str, attached: &[Hook]) -> Monitor {
        let evidence = Evidence {
            cpu: Some(CpuFeatures {
                split_lock_detect: split,
                bus_lock_detect: bus,
            }),
            parameter: Some(parameter.to_owned()),
            ..Evidence::default()
        };
        let attached = attached
            .iter()
            .fold(HookSet::empty(), |set, hook| set.with(*hook));
        Monitor::new(evidence, Some(true), attached)
    }

    #[test]
    fn who_is_seen() {
        for (split, bus, parameter, user, guest) in [
            (true, true, "warn", true, true),
            (true, true, "fatal", true, true),
            (true, true, "ratelimit:5", true, false),
            (true, true, "off", false, false),
            (true, false, "warn", true, true),
            // AMD: no `#AC` from guests.
            (false, true, "warn", true, false),
            (false, true, "fatal", true, false),
            (false, false, "warn", false, false),
        ] {
            let monitor = monitor(split, bus, parameter, &Hook::ALL);
            let case = format!("{split} {bus} {parameter}");
            assert_eq!(monitor.sees_user(), Some(user), "{case}");
            assert_eq!(monitor.sees_guest(false), Some(guest), "{case}");
            assert_eq!(monitor.sees_guest(true), Some(true), "{case}");
        }
    }

    #[test]
    fn the_mode_is_no_proof_where_the_kernel_may_not_arm() {
        for (split, bus, sees) in [(false, true, None), (true, true, Some(true))] {
            let mut monitor = monitor(split, bus, "warn", &Hook::ALL);
            monitor.evidence.arming_is_doubtful = true;
            assert_eq!(monitor.sees_user(), sees, "{split} {bus}");
        }
        let mut off = monitor(false, true, "off", &Hook::ALL);
        off.evidence.arming_is_doubtful = true;
        assert_eq!(off.sees_user(), Some(false));
    }

    #[test]
    fn without_a_hook_nothing_is_seen() {
        let warn = monitor(true, true, "warn", &[Hook::SignalGenerate]);
        assert_eq!(
            (warn.sees_user(), warn.sees_guest(false)),
            (Some(false), Some(false))
        );
        let fatal = monitor(true, true, "fatal", &[Hook::SignalGenerate]);
        assert_eq!(
            (fatal.sees_user(), fatal.sees_guest(false)),
            (Some(true), Some(true))
        );
    }

    #[test]
    fn a_hook_that_is_taken_off_sees_no_more() {
        let mut monitor = monitor(true, true, "warn", &Hook::ALL);
        assert_eq!(monitor.sees_user(), Some(true));
        monitor.set_attached(HookSet::empty().with(Hook::SignalGenerate));
        assert_eq!(
            (monitor.sees_user(), monitor.sees_guest(false)),
            (Some(false), Some(false))
        );
    }

    #[test]
    fn an_unknown_mode_is_no_answer() {
        let monitor = Monitor::new(Evidence::default(), None, HookSet::empty());
        assert_eq!(
            (monitor.sees_user(), monitor.sees_guest(false)),
            (None, None)
        );
        assert_eq!(monitor.detection().mode, Mode::Unknown);
    }

    #[test]
    fn changes_are_counted_and_better_knowledge_is_none() {
        let mut monitor = monitor(true, false, "warn", &Hook::ALL);
        monitor.read_memory(1);
        monitor.read_memory(1);
        assert_eq!(monitor.changes(), 0);
        assert_eq!(monitor.detection().source, Source::Memory);
        monitor.read_memory(2);
        assert_eq!(monitor.changes(), 1);
        assert_eq!(monitor.settings().mode, Mode::Fatal as u32);
        monitor.read_mitigation(Some(true));
        assert_eq!(monitor.changes(), 1);
        monitor.read_mitigation(Some(false));
        assert_eq!((monitor.changes(), monitor.mitigation()), (2, Some(false)));
    }
}
