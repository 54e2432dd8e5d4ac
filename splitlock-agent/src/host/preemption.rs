//! Can a task be preempted inside the kernel? It decides which ways of attaching lose nothing.
//!
//! The kernel skips a fentry program, and from 7.0 on a raw tracepoint's, for a task while another
//! one, preempted inside the same program, waits for the same CPU (`prog->active`, `recursion_misses`).
//! Kprobes and classic tracepoints run their programs with preemption off.

use std::fs;

/// Whether the kernel is preemptible; true where that is not known.
pub fn kernel_is_preemptible(version: Option<(u32, u32)>) -> bool {
    let read = |path: &str| fs::read_to_string(path).ok();
    decide(
        version,
        &read("/proc/sys/kernel/version").unwrap_or_default(),
        read("/sys/kernel/debug/sched/preempt").as_deref(),
        &read("/proc/cmdline").unwrap_or_default(),
    )
}

/// `build` is `uname -v`, `state` the scheduler's file in debugfs, such as
/// `none (voluntary) full lazy`.
fn decide(version: Option<(u32, u32)>, build: &str, state: Option<&str>, cmdline: &str) -> bool {
    // From 7.0 on x86 has the full and the lazy model only ("sched: Further restrict the
    // preemption modes").
    if version >= Some((7, 0)) {
        return true;
    }
    if !build.contains("PREEMPT") {
        return false;
    }
    if !build.contains("PREEMPT_DYNAMIC") {
        return true;
    }
    let current = state
        .and_then(|state| state.split('(').nth(1)?.split(')').next())
        .or_else(|| {
            cmdline
                .split_whitespace()
                .filter_map(|word| word.strip_prefix("preempt="))
                .next_back()
        });
    !matches!(current, Some("none" | "voluntary"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cpu::{self, CpuFeatures};

    const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-10-01)";
    const V6_12: Option<(u32, u32)> = Some((6, 12));

    #[test]
    fn a_dynamic_kernel_tells_its_model() {
        let states = [
            ("none (voluntary) full", false),
            ("(none) voluntary full lazy", false),
            ("none voluntary (full)", true),
            ("none voluntary full (lazy)", true),
        ];
        for (state, preemptible) in states {
            assert_eq!(
                decide(V6_12, DYNAMIC, Some(state), "preempt=full"),
                preemptible,
                "{state}"
            );
        }
        assert!(!decide(V6_12, DYNAMIC, None, "quiet preempt=voluntary"));
        assert!(decide(V6_12, DYNAMIC, None, "preempt=none preempt=full"));
        // Not known.
        assert!(decide(V6_12, DYNAMIC, None, "quiet"));
    }

    #[test]
    fn others_tell_by_their_name_or_age() {
        assert!(!decide(Some((5, 10)), "#1 SMP Debian 5.10.262-1", None, ""));
        assert!(decide(Some((5, 10)), "#1 SMP PREEMPT Debian", None, ""));
        assert!(decide(Some((6, 1)), "#1 SMP PREEMPT_RT Debian", None, ""));
        assert!(decide(
            Some((7, 2)),
            DYNAMIC,
            Some("none (voluntary) full"),
            ""
        ));
    }

    #[test]
    fn fuzz_boot_and_cpu() {
        bolero::check!(name = "boot_and_cpu").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            // Only a dynamic kernel can be told otherwise.
            assert!(decide(None, "#1 SMP PREEMPT_RT", Some(&text), &text));
            assert!(!decide(None, "#1 SMP", Some(&text), &text));
            assert!(!decide(None, DYNAMIC, Some("none (voluntary) full"), &text));
            let _ = (
                decide(None, &text, Some(&text), &text),
                cpu::is_intel(&text),
            );
            if let Some(found) = cpu::parameter(&text) {
                assert!(!found.contains(char::is_whitespace));
            }
            let last = format!("{text} split_lock_detect=fatal");
            assert_eq!(cpu::parameter(&last).as_deref(), Some("fatal"));
            if let Some(found) = CpuFeatures::parse(&text) {
                assert!(!found.split_lock_detect || text.contains("split_lock_detect"));
                assert!(!found.bus_lock_detect || text.contains("bus_lock_detect"));
            }
        });
    }
}
