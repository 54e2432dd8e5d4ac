//! Who a thread group is, and whether it still lives. Knows nothing of counts.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use splitlock_common::ledger::SubjectKey;

use crate::host::clock::TICK_NS;

pub mod cgroup;
pub mod death;
pub mod identity;
pub mod inquiries;
pub mod names;
pub mod paths;
pub mod process;
pub mod resolver;
pub mod uevents;
pub mod vm_search;
pub mod vmm;
pub mod vms;

/// A thread group for its whole life, as both the kernel side and `/proc` can tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubjectId {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start time in ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

impl SubjectId {
    /// The id that `vm` series carry where a VM has no UUID.
    pub fn label(self) -> String {
        format!("{}-{}", self.pid, self.start_ticks)
    }
}

impl FromStr for SubjectId {
    type Err = ();

    /// Reads what [`Self::label`] writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start_ticks) = text.split_once('-').ok_or(())?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(pid) || !is_number(start_ticks) {
            return Err(());
        }
        Ok(Self {
            pid: pid.parse().map_err(|_| ())?,
            start_ticks: start_ticks.parse().map_err(|_| ())?,
        })
    }
}

impl From<SubjectKey> for SubjectId {
    fn from(key: SubjectKey) -> Self {
        Self {
            pid: key.tgid,
            start_ticks: key.start_ns / TICK_NS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_back() {
        let id = SubjectId {
            pid: 12,
            start_ticks: 345,
        };
        assert_eq!(id.label().parse(), Ok(id));
        for text in [
            "",
            "1",
            "-",
            "1-",
            "-1",
            "+1-2",
            "1-2-3",
            "99999999999-1",
            "a-b",
        ] {
            assert_eq!(text.parse::<SubjectId>(), Err(()), "{text}");
        }
    }

    #[test]
    fn fuzz_subject_label() {
        bolero::check!(name = "subject_label").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            if let Ok(id) = text.parse::<SubjectId>() {
                assert_eq!(id.label().parse(), Ok(id));
                assert!(
                    text.bytes()
                        .all(|byte| byte == b'-' || byte.is_ascii_digit())
                );
            }
        });
    }
}
