//! What will be done on this host, and what to expect of it.

use super::reading::Host;
use crate::{cli::selftest::EventName, host};

/// How many misaligned loads are made, by a process and by a guest.
const LOADS: u32 = 100;

/// How many split locks are made.
const SPLIT_LOCKS: u32 = 3;

/// One part of the test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the child makes.
    pub event: EventName,
    /// How many.
    pub count: u32,
    /// Why it is left out.
    pub left_out: Option<String>,
}

/// What the kernel does about split locks of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Nothing, and why.
    Blind(String),
    /// It lets them go on, perhaps later.
    Reports,
    /// It sends a signal for each.
    Signals,
    /// Nobody knows.
    Unknown,
}

impl Detection {
    /// As the agent knows it.
    pub fn of(host: &Host) -> Self {
        let source = &host.detection_source;
        match host.detection_mode.as_str() {
            "unsupported" => Self::Blind(format!(
                "this CPU or its hypervisor offers no detection of split or bus locks ({source})"
            )),
            "off" => Self::Blind(format!("the kernel's detection is off ({source})")),
            "warn" | "ratelimit" => Self::Reports,
            "fatal" => Self::Signals,
            _ => Self::Unknown,
        }
    }
}

/// All steps on this host.
pub fn steps(host: &Host, insists: bool, kvm: Result<(), String>) -> Vec<Step> {
    let price = price(host).filter(|_| !insists);
    vec![
        Step {
            event: EventName::AlignmentCheck,
            count: LOADS,
            left_out: None,
        },
        Step {
            event: EventName::SplitLock,
            count: SPLIT_LOCKS,
            left_out: price.map(|price| format!("{price}; --split-lock makes them all the same")),
        },
        Step {
            event: EventName::Guest,
            count: LOADS,
            left_out: kvm.err(),
        },
    ]
}

/// What a split lock costs here besides the lock itself.
fn price(host: &Host) -> Option<String> {
    let wait = "the kernel holds up whoever splits a lock for 10 ms, others that do likewise wait \
                meanwhile";
    match Detection::of(host) {
        Detection::Blind(_) => None,
        Detection::Signals => {
            Some("the kernel sends SIGBUS for a split lock, which the child would survive".into())
        }
        Detection::Unknown => Some("what the kernel does about a split lock is not known".into()),
        Detection::Reports if host.detection_mode == "ratelimit" => {
            Some("the kernel holds up whoever locks the bus too often for 20 ms".into())
        }
        // `#DB` in warn mode delays nobody (handle_bus_lock, 5.13+).
        Detection::Reports if !host.has("split_lock_detect") => None,
        Detection::Reports => match host.mitigation {
            Some(true) => Some(format!("{wait} (kernel.split_lock_mitigate is 1)")),
            Some(false) => None,
            // The delay came with 5.19, the switch later.
            None => (host::version(&host.kernel) >= Some((5, 19))).then(|| wait.to_owned()),
        },
    }
}

impl Step {
    /// What it is, in words.
    pub fn describe(&self) -> String {
        let count = self.count;
        match self.event {
            EventName::AlignmentCheck => format!(
                "{count} loads from an odd address with EFLAGS.AC set; the child handles the SIGBUS \
                 of each. Harms nobody."
            ),
            EventName::SplitLock => format!(
                "{count} additions with LOCK across two cache lines, {} ms apart; each holds up all \
                 CPUs for about a microsecond.",
                super::events::PAUSE.as_millis()
            ),
            EventName::Guest => format!(
                "a KVM guest of 64 KiB and one vCPU, which makes {count} such loads. Harms nobody."
            ),
        }
    }

    /// What it is called.
    pub fn title(&self) -> &'static str {
        match self.event {
            EventName::AlignmentCheck => "alignment checks",
            EventName::SplitLock => "split locks",
            EventName::Guest => "guest",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn host(mode: &str, split_lock_detect: bool, mitigation: Option<bool>, kernel: &str) -> Host {
        Host {
            kernel: kernel.to_owned(),
            cpu_features: BTreeMap::from([("split_lock_detect".to_owned(), split_lock_detect)]),
            detection_mode: mode.to_owned(),
            detection_source: "memory".to_owned(),
            mitigation,
        }
    }

    #[test]
    fn split_locks_are_made_unasked_only_where_that_harms_nobody() {
        for (mode, split, mitigation, kernel, made) in [
            ("unsupported", false, None, "6.12.1", true),
            ("off", true, Some(true), "6.12.1", true),
            ("warn", true, Some(true), "6.12.1", false),
            ("warn", true, Some(false), "6.12.1", true),
            ("warn", true, None, "5.10.0-1", true),
            ("warn", true, None, "5.19.0", false),
            // `#DB` alone.
            ("warn", false, Some(true), "6.12.1", true),
            ("ratelimit", true, Some(true), "6.12.1", false),
            ("fatal", true, Some(false), "6.12.1", false),
            ("fatal", false, None, "5.15.0", false),
            ("unknown", false, None, "6.12.1", false),
        ] {
            let host = host(mode, split, mitigation, kernel);
            let case = format!("{host:?}");
            let step = |insists| steps(&host, insists, Ok(())).remove(1);
            assert_eq!(step(false).left_out.is_none(), made, "{case}");
            assert_eq!(step(true).left_out, None, "{case}");
            if let Some(reason) = step(false).left_out {
                assert!(reason.contains("--split-lock"), "{reason}");
            }
        }
    }

    #[test]
    fn what_harms_nobody_is_always_made_and_a_guest_where_it_can_be() {
        let host = host("fatal", true, Some(true), "6.12.1");
        let steps = steps(&host, false, Err("no /dev/kvm".to_owned()));
        assert_eq!(steps[0].left_out, None);
        assert_eq!(steps[2].left_out.as_deref(), Some("no /dev/kvm"));
        assert!(steps.iter().all(|step| step.count <= 100));
        assert!(steps[1].count <= 3);
    }
}
