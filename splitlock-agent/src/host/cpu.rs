//! What the CPU offers and the boot parameter asked for, from `/proc/cpuinfo` and `/proc/cmdline`.

use splitlock_common::Armed;

/// The CPU's two ways to notice a locked access, as the kernel shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    /// `#AC` on split locks. Up to 5.10 hidden when the boot parameter turned it off.
    pub split_lock_detect: bool,
    /// `#DB` on bus locks.
    pub bus_lock_detect: bool,
}

impl CpuFeatures {
    /// From the text of `/proc/cpuinfo`; all CPUs of a host have the same flags.
    pub fn parse(cpuinfo: &str) -> Self {
        let flags = cpuinfo
            .lines()
            .find_map(|line| {
                line.split_once(':')
                    .filter(|(key, _)| key.trim() == "flags")
            })
            .map_or("", |(_, flags)| flags);
        let has = |name| flags.split_whitespace().any(|flag| flag == name);
        Self {
            split_lock_detect: has("split_lock_detect"),
            bus_lock_detect: has("bus_lock_detect"),
        }
    }
}

/// Whether the boot parameter asked for the ratelimit mode: `split_lock_detect=ratelimit:N` with
/// N from 1 to 1000. The kernel takes the last of several, and anything it cannot read as warn
/// (`match_option`, `sld_state_setup` in arch/x86/kernel/cpu/bus_lock.c).
pub fn asks_for_ratelimit(cmdline: &str) -> bool {
    cmdline
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("split_lock_detect="))
        .next_back()
        .and_then(|value| value.strip_prefix("ratelimit:"))
        .and_then(|number| number.parse::<u32>().ok())
        .is_some_and(|number| (1..=1000).contains(&number))
}

/// Which exception is armed for user code. Where the CPU has both, `#DB` is armed only in
/// ratelimit mode, which leaves `#AC` off.
pub fn armed(features: CpuFeatures, ratelimit: bool) -> Armed {
    match features {
        CpuFeatures {
            bus_lock_detect: true,
            ..
        } if ratelimit => Armed::BusLock,
        CpuFeatures {
            split_lock_detect: true,
            ..
        } => Armed::SplitLock,
        CpuFeatures {
            bus_lock_detect: true,
            ..
        } => Armed::BusLock,
        _ => Armed::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: CpuFeatures = CpuFeatures {
        split_lock_detect: true,
        bus_lock_detect: true,
    };
    const BUS: CpuFeatures = CpuFeatures {
        split_lock_detect: false,
        bus_lock_detect: true,
    };

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        let cpuinfo = "processor\t: 0\nmodel name\t: split_lock_detect\nflags\t\t: fpu split_lock_detect bus_lock_detect_x\n";
        assert_eq!(
            CpuFeatures::parse(cpuinfo),
            CpuFeatures {
                split_lock_detect: true,
                bus_lock_detect: false
            }
        );
        assert_eq!(CpuFeatures::parse(""), CpuFeatures::default());
    }

    #[test]
    fn the_last_readable_parameter_counts() {
        assert!(asks_for_ratelimit("quiet split_lock_detect=ratelimit:10"));
        assert!(asks_for_ratelimit(
            "split_lock_detect=warn split_lock_detect=ratelimit:1000"
        ));
        for cmdline in [
            "",
            "split_lock_detect=ratelimit:0",
            "split_lock_detect=ratelimit:1001",
            "split_lock_detect=ratelimit",
            "split_lock_detect=ratelimit:5 split_lock_detect=fatal",
            "xsplit_lock_detect=ratelimit:5",
        ] {
            assert!(!asks_for_ratelimit(cmdline), "{cmdline}");
        }
    }

    #[test]
    fn both_features_arm_one_exception() {
        assert_eq!(armed(BOTH, false), Armed::SplitLock);
        assert_eq!(armed(BOTH, true), Armed::BusLock);
        assert_eq!(armed(BUS, false), Armed::BusLock);
        assert_eq!(armed(BUS, true), Armed::BusLock);
        assert_eq!(armed(CpuFeatures::default(), true), Armed::Unknown);
    }
}
