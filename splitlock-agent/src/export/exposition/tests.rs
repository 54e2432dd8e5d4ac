//! What a snapshot looks like to Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use splitlock_common::Event;

use super::*;
use crate::{
    export::metrics,
    subjects::{
        SubjectId,
        vmm::{Evidence, Vmm},
    },
    table::snapshot::{
        Fullness, HostFacts, Owner, PrivilegeFacts, ProbeRow, ProbeRuns, ProcessRow, RecordRing,
        SCHEMA, TrapCount, VmRow, WorkloadRow,
    },
};

fn owner() -> Arc<Owner> {
    Arc::new(Owner {
        exe: "/usr/bin/bad".to_owned(),
        cgroup: "/system.slice/bad.service".to_owned(),
        unit: "bad.service".to_owned(),
        ..Owner::default()
    })
}

fn process(pid: u32, start_ticks: u64, comm: &str, fatal: u64) -> ProcessRow {
    ProcessRow {
        subject: SubjectId { pid, start_ticks },
        comm: comm.into(),
        owner: owner(),
        started_at: 1.0,
        alive: true,
        traps: vec![TrapCount::new(
            Event::UserSplitLockSigbus.lock().unwrap(),
            fatal,
        )],
        alignment_checks: 3,
        delay_ns: 1_500_000_000,
        last_trap: Some(1_700_000_000.5),
        sites: vec![],
        carried: None,
    }
}

fn vm() -> VmRow {
    VmRow {
        subject: SubjectId {
            pid: 9,
            start_ticks: 8,
        },
        vm: "web \"1\"\\".to_owned(),
        id: "9-8".to_owned(),
        vmm: Vmm::Qemu,
        named_by: Evidence::CommandLine,
        owner: owner(),
        started_at: 1.0,
        alive: true,
        vcpus: 2,
        vcpu_threads: BTreeMap::from([(10, Some(0)), (11, None)]),
        traps: vec![TrapCount::new(
            Event::GuestBusLockReported.lock().unwrap(),
            6,
        )],
        ac_injected: 5,
        delay_ns: 1,
        last_trap: Some(1.0),
        exits: BTreeMap::from([("cpuid", 4)]),
        userspace_exits: BTreeMap::from([("io", 2), ("shutdown", 1)]),
        sites: vec![],
        carried: None,
    }
}

/// A snapshot with something of everything.
pub fn snapshot() -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        taken_at: 0.0,
        host: HostFacts {
            kernel: "6.18.0".to_owned(),
            cpu_features: BTreeMap::from([("split_lock_detect", true), ("bus_lock_detect", false)]),
            detection_mode: "fatal",
            detection_source: "memory",
            sees: BTreeMap::from([("user", true), ("guest", false)]),
            mitigation: Some(true),
            changes: 2,
        },
        host_traps: Event::ALL
            .iter()
            .filter_map(|event| Some(TrapCount::new(event.lock()?, 1)))
            .collect(),
        processes: vec![process(7, 1, "bad", 10)],
        vms: vec![vm()],
        workloads: vec![WorkloadRow {
            comm: "bad".into(),
            unit: "bad.service".into(),
            traps: vec![TrapCount::new(
                Event::UserSplitLockSigbus.lock().unwrap(),
                10,
            )],
        }],
        overflow_traps: BTreeMap::from([("process", 0), ("vm", 0)]),
        overflow_subjects: BTreeMap::from([("process", 4), ("vm", 0)]),
        lost: BTreeMap::from([("record_ring_full", 0)]),
        tracked: BTreeMap::from([("process", Fullness { used: 1, limit: 2 })]),
        ledgers: BTreeMap::from([("traps", Fullness { used: 3, limit: 4 })]),
        record_ring: Some(RecordRing {
            used_bytes: 1,
            peak_bytes: 2,
            size_bytes: 3,
        }),
        privileges: PrivilegeFacts::dropped(),
        probes: vec![
            ProbeRow {
                probe: "signal_generate",
                via: Some("raw_tracepoint"),
                counts: "every_trap",
                refused: vec![],
                detached: None,
                missed: Some(3),
                runs: Some(ProbeRuns {
                    runs: 4,
                    nanoseconds: 1500,
                }),
            },
            ProbeRow {
                probe: "split_lock_warn",
                via: None,
                counts: "none",
                refused: vec!["fentry: no".to_owned()],
                detached: Some("overhead"),
                missed: None,
                runs: None,
            },
        ],
        kernel_log_reports: BTreeMap::from([("split_lock", 0)]),
        kernel_log_history: Some(BTreeMap::from([("split_lock", 4)])),
        recent: vec![],
    }
}

fn served() -> web::Served {
    web::Served {
        connections: 3,
        connections_limit: 64,
        refused: vec![("method", 2)],
        config: Some(web::Reloads {
            failures: 1,
            is_current: false,
        }),
    }
}

#[test]
fn the_servers_own_series() {
    let text = String::from_utf8(web::encode(&served())).unwrap();
    for line in [
        "splitlock_web_connections 3",
        "splitlock_web_connections_limit 64",
        r#"splitlock_web_refused_total{cause="method"} 2"#,
        "splitlock_web_config_reload_failures_total 1",
        "splitlock_web_config_last_reload_success 0",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} in {text}");
    }
    let without_file = web::Served {
        config: None,
        ..served()
    };
    let text = String::from_utf8(web::encode(&without_file)).unwrap();
    assert!(!text.contains("web_config"), "{text}");
}

fn lines(snapshot: &Snapshot) -> BTreeSet<String> {
    let text = encode(snapshot, &ProcessCollector::for_self()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let set: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(set.len(), lines.len(), "a line comes twice");
    set
}

#[test]
fn every_family_of_the_contract_can_be_shown_and_no_other() {
    let mut text = families(&snapshot()).into_bytes();
    text.extend(web::encode(&served()));
    let text = String::from_utf8(text).unwrap();
    let shown: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    let contract: BTreeSet<String> = metrics::ALL
        .iter()
        .map(|family| family.name.to_owned())
        .collect();
    assert_eq!(shown, contract);
}

#[test]
fn values_and_labels() {
    let lines = lines(&snapshot());
    for line in [
        r#"splitlock_host_traps_total{origin="user",trap="split_lock",outcome="sigbus"} 1"#,
        r#"splitlock_process_traps_total{comm="bad",pid="7",trap="split_lock",outcome="sigbus"} 10"#,
        r#"splitlock_process_alignment_checks_total{comm="bad",pid="7"} 3"#,
        r#"splitlock_process_delay_seconds_total{comm="bad",pid="7"} 1.5"#,
        r#"splitlock_process_last_trap_timestamp_seconds{comm="bad",pid="7"} 1700000000.5"#,
        r#"splitlock_vm_traps_total{vm="web \"1\"\\",id="9-8",trap="bus_lock",outcome="reported"} 6"#,
        r#"splitlock_vm_ac_injected_total{vm="web \"1\"\\",id="9-8"} 5"#,
        r#"splitlock_vm_exits_total{vm="web \"1\"\\",id="9-8",reason="cpuid"} 4"#,
        r#"splitlock_vm_userspace_exits_total{vm="web \"1\"\\",id="9-8",reason="shutdown"} 1"#,
        r#"splitlock_vm_info{vm="web \"1\"\\",id="9-8",vmm="qemu",pid="9",cgroup="/system.slice/bad.service",container_id="",pod_uid=""} 1"#,
        r#"splitlock_process_info{comm="bad",pid="7",exe="/usr/bin/bad",cgroup="/system.slice/bad.service",unit="bad.service",container_id="",pod_uid=""} 1"#,
        r#"splitlock_workload_traps_total{comm="bad",unit="bad.service",trap="split_lock",outcome="sigbus"} 10"#,
        r#"splitlock_overflow_traps_total{kind="process"} 0"#,
        r#"splitlock_overflow_subjects_total{kind="process"} 4"#,
        r#"splitlock_host_cpu_feature{feature="split_lock_detect"} 1"#,
        "splitlock_host_mitigation_enabled 1",
        r#"splitlock_host_detection_mode{mode="fatal"} 1"#,
        r#"splitlock_host_detection_mode{mode="warn"} 0"#,
        r#"splitlock_host_detection_source_info{source="memory"} 1"#,
        r#"splitlock_host_sees{origin="user"} 1"#,
        r#"splitlock_host_sees{origin="guest"} 0"#,
        "splitlock_host_detection_changes_total 2",
        r#"splitlock_kernel_log_history_reports{trap="split_lock"} 4"#,
        r#"splitlock_probe_attached{probe="signal_generate",via="raw_tracepoint",counts="every_trap"} 1"#,
        r#"splitlock_probe_attached{probe="split_lock_warn",via="none",counts="none"} 0"#,
        r#"splitlock_probe_missed_total{probe="signal_generate"} 3"#,
        r#"splitlock_probe_runs_total{probe="signal_generate"} 4"#,
        r#"splitlock_probe_run_seconds_total{probe="signal_generate"} 0.0000015"#,
        "splitlock_record_ring_used_bytes 1",
        "splitlock_record_ring_peak_bytes 2",
        "splitlock_record_ring_size_bytes 3",
        r#"splitlock_tracked_subjects_limit{kind="process"} 2"#,
        r#"splitlock_ledger_entries{ledger="traps"} 3"#,
        r#"splitlock_ledger_entries_limit{ledger="traps"} 4"#,
        "# TYPE process_cpu_seconds_total counter",
    ] {
        assert!(lines.contains(line), "{line}\nnot in\n{lines:#?}");
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut snapshot = snapshot();
    snapshot.processes.clear();
    snapshot.host.mitigation = None;
    snapshot.kernel_log_history = None;
    let lines = lines(&snapshot);
    for name in [
        "splitlock_process_traps_total",
        "splitlock_host_mitigation_enabled",
        "splitlock_kernel_log_history_reports",
    ] {
        assert!(!lines.iter().any(|line| line.contains(name)), "{name}");
    }
}

#[test]
fn processes_of_one_pid_and_comm_share_their_series() {
    let mut snapshot = snapshot();
    let mut later = process(7, 2, "bad", 5);
    later.carried.get_or_insert_default().events[Event::UserSplitLockSigbus.index()] = 100;
    later.carried.get_or_insert_default().events[Event::AlignmentCheck.index()] = 1000;
    later.last_trap = None;
    snapshot.processes.push(later);
    snapshot.processes.push(process(7, 3, "other", 1));
    let lines = lines(&snapshot);
    for line in [
        r#"splitlock_process_traps_total{comm="bad",pid="7",trap="split_lock",outcome="sigbus"} 115"#,
        r#"splitlock_process_alignment_checks_total{comm="bad",pid="7"} 1006"#,
        r#"splitlock_process_delay_seconds_total{comm="bad",pid="7"} 3"#,
        r#"splitlock_process_last_trap_timestamp_seconds{comm="bad",pid="7"} 1700000000.5"#,
        r#"splitlock_process_traps_total{comm="other",pid="7",trap="split_lock",outcome="sigbus"} 1"#,
    ] {
        assert!(lines.contains(line), "{line}\nnot in\n{lines:#?}");
    }
}

#[test]
fn vms_of_one_name_and_id_share_their_series() {
    let mut snapshot = snapshot();
    snapshot.vms[0].alive = false;
    let mut later = vm();
    later.subject.start_ticks = 2;
    later.subject.pid = 10;
    later.last_trap = None;
    later.carried.get_or_insert_default().exits = BTreeMap::from([("cpuid", 100), ("hlt", 1)]);
    later.carried.get_or_insert_default().events[Event::AcInjected.index()] = 1000;
    later.carried.get_or_insert_default().events[Event::GuestBusLockReported.index()] = 10_000;
    snapshot.vms.push(later);
    let lines = lines(&snapshot);
    for line in [
        r#"splitlock_vm_traps_total{vm="web \"1\"\\",id="9-8",trap="bus_lock",outcome="reported"} 10012"#,
        r#"splitlock_vm_ac_injected_total{vm="web \"1\"\\",id="9-8"} 1010"#,
        r#"splitlock_vm_exits_total{vm="web \"1\"\\",id="9-8",reason="cpuid"} 108"#,
        r#"splitlock_vm_exits_total{vm="web \"1\"\\",id="9-8",reason="hlt"} 1"#,
        r#"splitlock_vm_userspace_exits_total{vm="web \"1\"\\",id="9-8",reason="io"} 4"#,
        r#"splitlock_vm_last_trap_timestamp_seconds{vm="web \"1\"\\",id="9-8"} 1"#,
        // The living one speaks for both.
        r#"splitlock_vm_info{vm="web \"1\"\\",id="9-8",vmm="qemu",pid="10",cgroup="/system.slice/bad.service",container_id="",pod_uid=""} 1"#,
    ] {
        assert!(lines.contains(line), "{line}\nnot in\n{lines:#?}");
    }
}
