//! The mode of detection, from the best source that is there.

use splitlock_common::{Armed, Mode, Trap};

use crate::{
    host::cpu::CpuFeatures,
    intake::kernel_log::message::{Setup, SetupMode},
};

/// Where the mode is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel's variable `sld_state`.
    Memory,
    /// What the kernel said at boot.
    BootMessage,
    /// The CPU's flags: without one nothing can be trapped.
    CpuFlags,
    /// The boot parameter `split_lock_detect=`.
    Parameter,
    /// The CPU's flags, and no boot parameter: the kernel's default.
    Default,
    /// None.
    None,
}

impl Source {
    /// All of them, best first.
    pub const ALL: [Self; 6] = [
        Self::Memory,
        Self::BootMessage,
        Self::CpuFlags,
        Self::Parameter,
        Self::Default,
        Self::None,
    ];

    /// The label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::BootMessage => "boot_message",
            Self::CpuFlags => "cpu_flags",
            Self::Parameter => "parameter",
            Self::Default => "default",
            Self::None => "none",
        }
    }
}

/// What is known of the mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The CPU's flags; `None` where they could not be read.
    pub cpu: Option<CpuFeatures>,
    /// Value of the last `split_lock_detect=` of the command line.
    pub parameter: Option<String>,
    /// The last line about it that is left of the boot.
    pub message: Option<Setup>,
    /// The kernel's `sld_state`.
    pub memory: Option<u32>,
    /// Whether the kernel may leave bus-lock detection off whatever the mode is.
    pub arming_is_doubtful: bool,
}

/// The mode, how it is known, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// The mode.
    pub mode: Mode,
    /// How it is known.
    pub source: Source,
    /// Which exception is armed for user code.
    pub armed: Armed,
}

impl Evidence {
    /// Weighs the evidence.
    pub fn weigh(&self) -> Detection {
        let (mode, source) = self.mode();
        Detection {
            mode,
            source,
            armed: self.armed(mode),
        }
    }

    fn mode(&self) -> (Mode, Source) {
        let can_notice = self.cpu.map(CpuFeatures::any);
        if let Some(mode) = self.memory.and_then(Mode::from_kernel) {
            // The variable says "off" also where there is nothing to switch on.
            let mode = match (mode, can_notice) {
                (Mode::Off, Some(false)) => Mode::Unsupported,
                _ => mode,
            };
            return (mode, Source::Memory);
        }
        if let Some(Setup { trap: _, mode }) = self.message {
            let mode = match mode {
                SetupMode::Disabled => Mode::Off,
                SetupMode::Warn => Mode::Warn,
                SetupMode::Fatal => Mode::Fatal,
                SetupMode::RateLimit { per_second: _ } => Mode::Ratelimit,
            };
            return (mode, Source::BootMessage);
        }
        let Some(cpu) = self.cpu else {
            return (Mode::Unknown, Source::None);
        };
        match self.parameter.as_deref() {
            // Up to 5.10 the flag is hidden when detection is off.
            Some("off") => (Mode::Off, Source::Parameter),
            _ if !cpu.any() => (Mode::Unsupported, Source::CpuFlags),
            Some(value) => (parameter_mode(value, cpu), Source::Parameter),
            None => (Mode::Warn, Source::Default),
        }
    }

    /// Where the CPU has both, `#DB` is armed only in ratelimit mode, which leaves `#AC` off.
    fn armed(&self, mode: Mode) -> Armed {
        let cpu = self.cpu.unwrap_or_default();
        match (self.message, mode) {
            (_, Mode::Ratelimit) => Armed::BusLock,
            (
                Some(Setup {
                    trap: Some(trap), ..
                }),
                _,
            ) => match trap {
                Trap::SplitLock => Armed::SplitLock,
                Trap::BusLock => Armed::BusLock,
            },
            _ if cpu.split_lock_detect => Armed::SplitLock,
            _ if cpu.bus_lock_detect => Armed::BusLock,
            _ => Armed::Unknown,
        }
    }
}

/// Anything but off, fatal and a good ratelimit is warn (`sld_state_setup`, arch/x86/kernel/cpu/
/// bus_lock.c); ratelimit came with `#DB`.
fn parameter_mode(value: &str, cpu: CpuFeatures) -> Mode {
    let rate = value
        .strip_prefix("ratelimit:")
        .and_then(|number| number.parse::<u32>().ok())
        .filter(|number| (1..=1000).contains(number));
    match value {
        "off" => Mode::Off,
        "fatal" => Mode::Fatal,
        _ if rate.is_some() && cpu.bus_lock_detect => Mode::Ratelimit,
        _ => Mode::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEITHER: CpuFeatures = CpuFeatures {
        split_lock_detect: false,
        bus_lock_detect: false,
    };
    const BOTH: CpuFeatures = CpuFeatures {
        split_lock_detect: true,
        bus_lock_detect: true,
    };
    const SPLIT: CpuFeatures = CpuFeatures {
        split_lock_detect: true,
        bus_lock_detect: false,
    };
    const BUS: CpuFeatures = CpuFeatures {
        split_lock_detect: false,
        bus_lock_detect: true,
    };

    fn weigh(
        cpu: Option<CpuFeatures>,
        parameter: Option<&str>,
        message: Option<(Option<Trap>, SetupMode)>,
        memory: Option<u32>,
    ) -> (Mode, Source, Armed) {
        let Detection {
            mode,
            source,
            armed,
        } = Evidence {
            cpu,
            parameter: parameter.map(str::to_owned),
            message: message.map(|(trap, mode)| Setup { trap, mode }),
            memory,
            arming_is_doubtful: false,
        }
        .weigh();
        (mode, source, armed)
    }

    #[test]
    fn memory_is_believed_before_anything_else() {
        let said = Some((Some(Trap::SplitLock), SetupMode::Warn));
        for (value, mode) in [(0, Mode::Off), (1, Mode::Warn), (2, Mode::Fatal)] {
            assert_eq!(
                weigh(Some(BOTH), Some("warn"), said, Some(value)),
                (mode, Source::Memory, Armed::SplitLock)
            );
        }
        assert_eq!(
            weigh(Some(BOTH), None, said, Some(3)),
            (Mode::Ratelimit, Source::Memory, Armed::BusLock)
        );
        assert_eq!(
            weigh(Some(NEITHER), None, None, Some(0)),
            (Mode::Unsupported, Source::Memory, Armed::Unknown)
        );
        // A value that no kernel has is no evidence.
        assert_eq!(
            weigh(Some(SPLIT), Some("fatal"), None, Some(77)),
            (Mode::Fatal, Source::Parameter, Armed::SplitLock)
        );
    }

    #[test]
    fn then_what_the_kernel_said() {
        let rate = SetupMode::RateLimit { per_second: 5 };
        for (said, mode, armed) in [
            ((None, SetupMode::Disabled), Mode::Off, Armed::SplitLock),
            (
                (Some(Trap::BusLock), SetupMode::Fatal),
                Mode::Fatal,
                Armed::BusLock,
            ),
            ((Some(Trap::BusLock), rate), Mode::Ratelimit, Armed::BusLock),
        ] {
            assert_eq!(
                weigh(Some(BOTH), Some("warn"), Some(said), None),
                (mode, Source::BootMessage, armed)
            );
        }
    }

    #[test]
    fn then_the_parameter_as_the_kernel_reads_it() {
        for (cpu, value, mode, armed) in [
            (BOTH, "off", Mode::Off, Armed::SplitLock),
            (BOTH, "warn", Mode::Warn, Armed::SplitLock),
            (BOTH, "fatal", Mode::Fatal, Armed::SplitLock),
            (BOTH, "ratelimit:1000", Mode::Ratelimit, Armed::BusLock),
            (BOTH, "ratelimit:1001", Mode::Warn, Armed::SplitLock),
            (BOTH, "ratelimit:0", Mode::Warn, Armed::SplitLock),
            (BOTH, "ratelimit", Mode::Warn, Armed::SplitLock),
            (BOTH, "nonsense", Mode::Warn, Armed::SplitLock),
            (SPLIT, "ratelimit:5", Mode::Warn, Armed::SplitLock),
            (BUS, "warn", Mode::Warn, Armed::BusLock),
        ] {
            assert_eq!(
                weigh(Some(cpu), Some(value), None, None),
                (mode, Source::Parameter, armed),
                "{value}"
            );
        }
    }

    #[test]
    fn a_flag_without_a_parameter_is_the_default() {
        assert_eq!(
            weigh(Some(SPLIT), None, None, None),
            (Mode::Warn, Source::Default, Armed::SplitLock)
        );
        assert_eq!(
            weigh(Some(BUS), None, None, None),
            (Mode::Warn, Source::Default, Armed::BusLock)
        );
    }

    #[test]
    fn without_flags_there_is_nothing_to_detect() {
        assert_eq!(
            weigh(Some(NEITHER), Some("fatal"), None, None),
            (Mode::Unsupported, Source::CpuFlags, Armed::Unknown)
        );
        // 5.10 hides the flag when it is off.
        assert_eq!(
            weigh(Some(NEITHER), Some("off"), None, None),
            (Mode::Off, Source::Parameter, Armed::Unknown)
        );
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(
            weigh(None, Some("fatal"), None, None),
            (Mode::Unknown, Source::None, Armed::Unknown)
        );
    }
}
