//! What the agent needs from the kernel before it can begin, and how to get it.

use std::fs;

use rustix::thread::{CapabilitySet, capabilities};

/// Capabilities that `bpf()` and `perf_event_open()` ask for (5.8+). `CAP_SYS_ADMIN` includes
/// both.
const NEEDED: [(CapabilitySet, &str, &str); 2] = [
    (CapabilitySet::BPF, "CAP_BPF", "loading BPF programs"),
    (
        CapabilitySet::PERFMON,
        "CAP_PERFMON",
        "attaching them to kernel events",
    ),
];

/// Names what is missing with what it is for; `None` where nothing is.
pub fn missing() -> Option<String> {
    match capabilities(None) {
        Ok(sets) => missing_from(sets.effective),
        Err(error) => Some(format!(
            "the agent's own capabilities are unreadable: {error}"
        )),
    }
}

/// Capabilities without which the agent tells less, and what.
const USEFUL: [(CapabilitySet, &str); 4] = [
    (
        CapabilitySet::CHECKPOINT_RESTORE,
        "without CAP_CHECKPOINT_RESTORE functions in files that were deleted or replaced are not named",
    ),
    (
        CapabilitySet::SYS_PTRACE,
        "without CAP_SYS_PTRACE the files that other users' processes run are not known, nor VMs \
         that were there before and do not run",
    ),
    (
        CapabilitySet::DAC_READ_SEARCH,
        "without CAP_DAC_READ_SEARCH the cgroups of processes that have ended are not known, nor \
         tracefs",
    ),
    (
        CapabilitySet::SYSLOG,
        "without CAP_SYSLOG the kernel log may be closed, and the mode of detection is not read from \
         memory",
    ),
];

/// What the agent cannot tell for lack of a capability.
pub fn lacking() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else {
        return vec![];
    };
    lacking_from(sets.effective)
}

fn lacking_from(effective: CapabilitySet) -> Vec<&'static str> {
    // The kernel asks for either (`checkpoint_restore_ns_capable`).
    let covered = if effective.contains(CapabilitySet::SYS_ADMIN) {
        effective | CapabilitySet::CHECKPOINT_RESTORE
    } else {
        effective
    };
    USEFUL
        .iter()
        .filter(|(capability, _)| !covered.contains(*capability))
        .map(|(_, what)| *what)
        .collect()
}

/// Whether the kernel is locked down so far that programs cannot read its memory.
pub fn is_locked_down() -> bool {
    fs::read_to_string("/sys/kernel/security/lockdown")
        .is_ok_and(|state| state.contains("[confidentiality]"))
}

fn missing_from(effective: CapabilitySet) -> Option<String> {
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return None;
    }
    let names: Vec<String> = NEEDED
        .iter()
        .filter(|(capability, ..)| !effective.contains(*capability))
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "missing {}; run splitlock-agent as root, or as a service with AmbientCapabilities=\
             CAP_BPF CAP_PERFMON CAP_CHECKPOINT_RESTORE CAP_DAC_READ_SEARCH CAP_SYS_PTRACE CAP_SYSLOG",
            names.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named() {
        assert_eq!(lacking_from(CapabilitySet::empty()).len(), USEFUL.len());
        let lacking = lacking_from(CapabilitySet::SYS_ADMIN);
        assert!(!lacking.iter().any(|text| text.contains("CHECKPOINT")));
        assert_eq!(lacking.len(), USEFUL.len() - 1);
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = missing_from(CapabilitySet::empty()).unwrap();
        assert!(
            text.contains("CAP_BPF") && text.contains("CAP_PERFMON"),
            "{text}"
        );
        let text = missing_from(CapabilitySet::BPF).unwrap();
        assert!(!text.starts_with("missing CAP_BPF"), "{text}");
        assert_eq!(
            missing_from(CapabilitySet::BPF | CapabilitySet::PERFMON),
            None
        );
        assert_eq!(missing_from(CapabilitySet::SYS_ADMIN), None);
    }
}
