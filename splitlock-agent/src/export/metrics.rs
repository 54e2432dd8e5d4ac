//! The metrics contract: every family with its type, labels and help text. `docs/metrics.md` is
//! made from this table.

use prometheus::proto::MetricType;

/// One family of metrics.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricType,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its help text.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family {
                name: $name,
                kind: MetricType::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All families of the agent's own, in the order of the exposition.
        pub static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    HOST_TRAPS: COUNTER "splitlock_host_traps_total" ["origin", "trap", "outcome"]
        "Locks that the kernel trapped on this host, by whose code made them, by the mechanism that noticed them and by what the kernel did.";
    WORKLOAD_TRAPS: COUNTER "splitlock_workload_traps_total" ["comm", "unit", "trap", "outcome"]
        "Locks trapped in the own code of all processes of one name in one container or systemd unit, over all their lives.";
    PROCESS_TRAPS: COUNTER "splitlock_process_traps_total" ["comm", "pid", "trap", "outcome"]
        "Locks trapped in a process's own code.";
    PROCESS_ALIGNMENT_CHECKS: COUNTER "splitlock_process_alignment_checks_total" ["comm", "pid"]
        "Alignment checks that a process asked for by EFLAGS.AC. They are no locks.";
    PROCESS_DELAY: COUNTER "splitlock_process_delay_seconds_total" ["comm", "pid"]
        "Time for which the kernel held a process up for the locks of its own code.";
    PROCESS_LAST_TRAP: GAUGE "splitlock_process_last_trap_timestamp_seconds" ["comm", "pid"]
        "Unix time of the last lock trapped in a process's own code.";
    PROCESS_INFO: GAUGE "splitlock_process_info" ["comm", "pid", "exe", "cgroup", "unit", "container_id", "pod_uid"]
        "Whose a process is, always 1.";
    VM_TRAPS: COUNTER "splitlock_vm_traps_total" ["vm", "id", "trap", "outcome"]
        "Locks trapped in a VM's guest code.";
    VM_AC_INJECTED: COUNTER "splitlock_vm_ac_injected_total" ["vm", "id"]
        "Alignment-check exceptions that KVM handed to the guest.";
    VM_DELAY: COUNTER "splitlock_vm_delay_seconds_total" ["vm", "id"]
        "Time for which the kernel held a VM's vCPUs up for the locks of its guest code.";
    VM_LAST_TRAP: GAUGE "splitlock_vm_last_trap_timestamp_seconds" ["vm", "id"]
        "Unix time of the last lock trapped in a VM's guest code.";
    VM_EXITS: COUNTER "splitlock_vm_exits_total" ["vm", "id", "reason"]
        "VM exits by the kernel's name of their reason.";
    VM_USERSPACE_EXITS: COUNTER "splitlock_vm_userspace_exits_total" ["vm", "id", "reason"]
        "Returns from KVM to the VMM by the kernel's name of their reason (KVM_EXIT_*).";
    VM_INFO: GAUGE "splitlock_vm_info" ["vm", "id", "vmm", "pid", "cgroup", "container_id", "pod_uid"]
        "Whose a VM is and what runs it, always 1.";
    OVERFLOW_TRAPS: COUNTER "splitlock_overflow_traps_total" ["kind"]
        "Locks of processes, workloads or VMs that have no series of their own, as a limit was reached.";
    OVERFLOW_SUBJECTS: COUNTER "splitlock_overflow_subjects_total" ["kind"]
        "Processes, workloads or VMs that found no series free when they came, also without locks.";
    DETECTION_MODE: GAUGE "splitlock_host_detection_mode" ["mode"]
        "1 for the mode of the kernel's detection, 0 for the others.";
    DETECTION_SOURCE: GAUGE "splitlock_host_detection_source_info" ["source"]
        "How the mode of detection is known.";
    SEES: GAUGE "splitlock_host_sees" ["origin"]
        "Whether a lock of this origin would be noticed on this host. Absent where the mode is unknown.";
    DETECTION_CHANGES: COUNTER "splitlock_host_detection_changes_total" []
        "How often the mode of detection or the mitigation was seen to change, at a scrape.";
    CPU_FEATURE: GAUGE "splitlock_host_cpu_feature" ["feature"]
        "Whether the kernel shows a CPU feature that can notice locks.";
    MITIGATION_ENABLED: GAUGE "splitlock_host_mitigation_enabled" []
        "Whether the kernel delays code that makes split locks (kernel.split_lock_mitigate).";
    KERNEL_LOG_REPORTS: COUNTER "splitlock_kernel_log_reports_total" ["trap"]
        "Reports of trapped locks in the kernel log since the agent's start. The kernel limits their rate.";
    KERNEL_LOG_HISTORY: GAUGE "splitlock_kernel_log_history_reports" ["trap"]
        "Reports of trapped locks that the kernel log held when the agent started.";
    PROBE_ATTACHED: GAUGE "splitlock_probe_attached" ["probe", "via", "counts"]
        "Whether a hook is attached, how, and what its count means.";
    PROBE_DETACHED: GAUGE "splitlock_probe_detached" ["probe", "reason"]
        "1 for a hook that the agent took off while it ran, by reason: overhead (--max-overhead), request (SIGUSR1). Absent for others.";
    PROBE_MISSED: COUNTER "splitlock_probe_missed_total" ["probe"]
        "How often the kernel skipped a hook's programs, as they were running on that CPU already. Such events are not counted elsewhere. Kernels before 5.12 do not tell.";
    PROBE_RUNS: COUNTER "splitlock_probe_runs_total" ["probe"]
        "Runs of a hook's programs by the kernel's statistics; with --probe-statistics or --max-overhead only.";
    PROBE_RUN_SECONDS: COUNTER "splitlock_probe_run_seconds_total" ["probe"]
        "Time in a hook's programs by the kernel's statistics; with --probe-statistics or --max-overhead only.";
    LOST: COUNTER "splitlock_lost_total" ["cause"]
        "What was lost, by cause. Records are details; no count depends on them.";
    TRACKED: GAUGE "splitlock_tracked_subjects" ["kind"]
        "Processes, workloads or VMs that have series of their own.";
    TRACKED_LIMIT: GAUGE "splitlock_tracked_subjects_limit" ["kind"]
        "How many processes, workloads or VMs can have series of their own.";
    LEDGER: GAUGE "splitlock_ledger_entries" ["ledger"]
        "Entries in use of the kernel's ledgers: subjects with traps, vCPU threads with exits.";
    LEDGER_LIMIT: GAUGE "splitlock_ledger_entries_limit" ["ledger"]
        "How many entries a ledger has.";
    PRIVILEGES: GAUGE "splitlock_privileges_info" ["user", "capabilities", "landlock", "seccomp"]
        "What rights the agent has: its user id, capabilities in force (none, all, or names), how whole its Landlock domain is (full, partial, none), whether its system calls are filtered (0 or 1); always 1.";
    HELPER_UP: GAUGE "splitlock_helper_up" ["helper"]
        "Whether a process that looks into other processes for the agent is there, or would be if it were asked (0 or 1).";
    HELPER_DEATHS: COUNTER "splitlock_helper_deaths_total" ["helper"]
        "Processes that looked into other processes for the agent and died without being asked to.";
    RECORD_RING_USED: GAUGE "splitlock_record_ring_used_bytes" []
        "Bytes of the records' ring buffer that wait to be read.";
    RECORD_RING_PEAK: GAUGE "splitlock_record_ring_peak_bytes" []
        "The most bytes of the records' ring buffer that waited at a reading since the agent's start.";
    RECORD_RING_SIZE: GAUGE "splitlock_record_ring_size_bytes" []
        "Size of the records' ring buffer. What does not fit is in splitlock_lost_total.";
    WEB_CONNECTIONS: GAUGE "splitlock_web_connections" []
        "Connections of clients to the agent's server.";
    WEB_CONNECTIONS_LIMIT: GAUGE "splitlock_web_connections_limit" []
        "How many connections there can be. Past it, those that wait longest make room.";
    WEB_REFUSED: COUNTER "splitlock_web_refused_total" ["cause"]
        "What the agent's server refused its clients, by cause.";
    WEB_CONFIG_FAILURES: COUNTER "splitlock_web_config_reload_failures_total" []
        "How often --web.config.file had changed and could not be used, so that the last good one went on.";
    WEB_CONFIG_CURRENT: GAUGE "splitlock_web_config_last_reload_success" []
        "Whether --web.config.file is in use as it was read last.";
    BUILD_INFO: GAUGE "splitlock_build_info" ["version", "revision", "rustversion"]
        "What this agent was built from, and with which compiler.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, env, fs, path::Path};

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            assert!(family.name.starts_with("splitlock_"), "{}", family.name);
            assert_eq!(
                family.name.ends_with("_total"),
                family.kind == MetricType::COUNTER,
                "{}",
                family.name
            );
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
    }

    /// The page in `docs/` is this table. After a change, run this test with
    /// `SPLITLOCK_UPDATE_DOCS=1`.
    #[test]
    fn the_documentation_is_this_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let text = fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- families begin -->\n", "<!-- families end -->\n");
        let start = text.find(begin).unwrap() + begin.len();
        let stop = text.find(end).unwrap();
        let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
        for family in ALL {
            let kind = if family.kind == MetricType::COUNTER {
                "counter"
            } else {
                "gauge"
            };
            let labels: Vec<String> = family
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            table += &format!(
                "| `{}` | {kind} | {} | {} |\n",
                family.name,
                labels.join(", "),
                family.help
            );
        }
        if env::var_os("SPLITLOCK_UPDATE_DOCS").is_some() {
            fs::write(&path, format!("{}{table}{}", &text[..start], &text[stop..])).unwrap();
            return;
        }
        assert_eq!(
            &text[start..stop],
            table,
            "docs/metrics.md is out of date: SPLITLOCK_UPDATE_DOCS=1 cargo test -p splitlock-agent documentation"
        );
    }
}
