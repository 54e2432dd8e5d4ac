//! What the CPU offers and the boot parameter asked for, from `/proc/cpuinfo` and `/proc/cmdline`.

use std::collections::BTreeMap;

/// The CPU's two ways to notice a locked access, as the kernel shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    /// `#AC` on split locks. Up to 5.10 hidden when the boot parameter turned it off.
    pub split_lock_detect: bool,
    /// `#DB` on bus locks.
    pub bus_lock_detect: bool,
}

impl CpuFeatures {
    /// From the text of `/proc/cpuinfo`; all CPUs of a host have the same flags. `None` for a text
    /// without flags.
    pub fn parse(cpuinfo: &str) -> Option<Self> {
        let (_, flags) = cpuinfo.lines().find_map(|line| {
            line.split_once(':')
                .filter(|(key, _)| key.trim() == "flags")
        })?;
        let has = |name| flags.split_whitespace().any(|flag| flag == name);
        Some(Self {
            split_lock_detect: has("split_lock_detect"),
            bus_lock_detect: has("bus_lock_detect"),
        })
    }

    /// Each with the kernel's name of it.
    pub fn by_name(self) -> BTreeMap<&'static str, bool> {
        let Self {
            split_lock_detect,
            bus_lock_detect,
        } = self;
        [
            ("split_lock_detect", split_lock_detect),
            ("bus_lock_detect", bus_lock_detect),
        ]
        .into()
    }

    /// Whether the CPU has either.
    pub const fn any(self) -> bool {
        self.split_lock_detect || self.bus_lock_detect
    }
}

/// The value of the boot parameter `split_lock_detect=`: the kernel takes the last of several
/// (`cmdline_find_option`).
pub fn parameter(cmdline: &str) -> Option<String> {
    cmdline
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("split_lock_detect="))
        .next_back()
        .map(str::to_owned)
}

/// Whether the text of `/proc/cpuinfo` is of Intel's CPUs.
pub fn is_intel(cpuinfo: &str) -> bool {
    cpuinfo.lines().any(|line| {
        line.split_once(':')
            .is_some_and(|(key, value)| key.trim() == "vendor_id" && value.trim() == "GenuineIntel")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_maker_is_a_line_of_its_own() {
        assert!(is_intel("processor\t: 0\nvendor_id\t: GenuineIntel\n"));
        assert!(!is_intel(
            "vendor_id\t: AuthenticAMD\nmodel name\t: not GenuineIntel\n"
        ));
        assert!(!is_intel(""));
    }

    use super::*;

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        let cpuinfo = "processor\t: 0\nmodel name\t: split_lock_detect\nflags\t\t: fpu split_lock_detect bus_lock_detect_x\n";
        assert_eq!(
            CpuFeatures::parse(cpuinfo),
            Some(CpuFeatures {
                split_lock_detect: true,
                bus_lock_detect: false
            })
        );
        assert_eq!(CpuFeatures::parse(""), None);
        assert_eq!(
            CpuFeatures::parse("flags: fpu"),
            Some(CpuFeatures::default())
        );
    }

    #[test]
    fn the_last_parameter_counts() {
        let read = |cmdline| parameter(cmdline).unwrap_or_default();
        assert_eq!(read("quiet split_lock_detect=ratelimit:10"), "ratelimit:10");
        assert_eq!(
            read("split_lock_detect=warn split_lock_detect=fatal"),
            "fatal"
        );
        assert_eq!(read("xsplit_lock_detect=fatal split_lock_detect"), "");
    }
}
