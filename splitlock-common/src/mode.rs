//! The modes of split-lock detection.

/// What the kernel does about split locks and bus locks: `sld_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Mode {
    /// Not known.
    #[default]
    Unknown = 0,
    /// Nothing is trapped.
    Off = 1,
    /// The offender is warned about, and delayed where the mitigation is on.
    Warn = 2,
    /// The offender gets SIGBUS.
    Fatal = 3,
    /// Bus locks are slowed down; split locks are not trapped.
    Ratelimit = 4,
    /// The CPU has neither way to notice them.
    Unsupported = 5,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Off,
        Self::Warn,
        Self::Fatal,
        Self::Ratelimit,
        Self::Unsupported,
        Self::Unknown,
    ];

    /// The mode with this number, as the BPF programs get it.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Off,
            2 => Self::Warn,
            3 => Self::Fatal,
            4 => Self::Ratelimit,
            5 => Self::Unsupported,
            _ => Self::Unknown,
        }
    }

    /// The value of the kernel's `sld_state`: `enum split_lock_detect_state`, whose last member
    /// came with 5.14.
    /// <https://github.com/torvalds/linux/blob/v6.18/arch/x86/kernel/cpu/bus_lock.c>
    pub const fn from_kernel(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::Off),
            1 => Some(Self::Warn),
            2 => Some(Self::Fatal),
            3 => Some(Self::Ratelimit),
            _ => None,
        }
    }

    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Fatal => "fatal",
            Self::Ratelimit => "ratelimit",
            Self::Unsupported => "unsupported",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_their_own() {
        let names: BTreeSet<_> = Mode::ALL.iter().map(|mode| mode.name()).collect();
        assert_eq!(names.len(), Mode::ALL.len());
        for mode in Mode::ALL {
            assert_eq!(Mode::from_number(mode as u32), mode);
        }
        assert_eq!(Mode::from_number(99), Mode::Unknown);
        assert_eq!(Mode::from_kernel(4), None);
    }
}
