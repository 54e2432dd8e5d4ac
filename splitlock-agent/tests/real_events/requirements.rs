//! What a test needs of the machine.

use std::{env, path::PathBuf};

use super::events::kvm_guest::kvm_available;

/// One need.
#[derive(Clone, Copy)]
pub enum Requirement {
    /// The rights to load BPF programs.
    Root,
    /// `/dev/kvm`.
    Kvm,
    /// Prometheus and promtool.
    Prometheus,
}

impl Requirement {
    /// Says what is missing.
    pub fn check(self) -> Result<(), String> {
        match self {
            Self::Root => {
                // SAFETY: the call has no preconditions.
                if unsafe { libc::geteuid() } == 0 {
                    Ok(())
                } else {
                    Err("needs root's rights: cargo xtask test --sudo".to_owned())
                }
            }
            Self::Kvm => kvm_available(),
            Self::Prometheus => {
                if prometheus().is_some() && promtool().is_some() {
                    Ok(())
                } else {
                    Err("needs prometheus and promtool: cargo xtask test brings them".to_owned())
                }
            }
        }
    }
}

/// Where prometheus is.
pub fn prometheus() -> Option<PathBuf> {
    env::var_os("SPLITLOCK_PROMETHEUS").map(PathBuf::from)
}

/// Where promtool is.
pub fn promtool() -> Option<PathBuf> {
    env::var_os("SPLITLOCK_PROMTOOL").map(PathBuf::from)
}

/// Whether a test that cannot run is a failure.
pub fn must_run() -> bool {
    env::var_os("SPLITLOCK_TESTS_MUST_RUN").is_some()
}
