//! Judgements on made-up hosts.

use serde_json::{Value, json};

use super::*;

const WHO: SubjectId = SubjectId {
    pid: 7,
    start_ticks: 70,
};

/// A snapshot of an agent with all hooks attached that shows WHO with these counts.
fn snapshot(mode: &str, checks: u64, locks: u64) -> Value {
    let probes: Vec<Value> = Hook::ALL
        .iter()
        .map(|hook| {
            json!({"probe": hook.name(), "via": "kprobe", "counts": "every_trap", "refused": [], "missed": 0})
        })
        .collect();
    json!({
        "schema": 1,
        "host": {
            "kernel": "6.12.1",
            "cpu_features": {"split_lock_detect": true, "bus_lock_detect": true},
            "detection_mode": mode,
            "detection_source": "memory",
            "mitigation": false,
        },
        "processes": [{
            "pid": 7, "start_ticks": 70, "alignment_checks": checks, "traps": [{"count": locks}],
        }],
        "vms": [],
        "tracked": {"process": {"used": 1, "limit": 1000}, "vm": {"used": 0, "limit": 4096}},
        "probes": probes,
        "kernel_log_reports": {},
    })
}

fn with_vm(mut snapshot: Value, injected: u64, returns: &Value, exits: u64) -> Value {
    snapshot["vms"] = json!([{
        "pid": 7, "start_ticks": 70, "ac_injected": injected,
        "userspace_exits": returns, "exits": {"hlt": exits},
    }]);
    snapshot
}

fn probe<'a>(snapshot: &'a mut Value, name: &str) -> &'a mut Value {
    let probes = snapshot["probes"].as_array_mut().unwrap();
    probes.iter_mut().find(|row| row["probe"] == name).unwrap()
}

fn detach(snapshot: &mut Value, names: &[&str], why: &str) {
    for name in names {
        let row = probe(snapshot, name);
        row["via"] = Value::Null;
        row["refused"] = json!([format!("kprobe: {why}")]);
    }
}

fn judge<T>(after: &Value, results: &str, of: impl FnOnce(&Evidence<'_>) -> T) -> T {
    let before: Reading = serde_json::from_value(snapshot("warn", 0, 0)).unwrap();
    let after: Reading = serde_json::from_value(after.clone()).unwrap();
    of(&Evidence {
        who: WHO,
        results: &results.parse().unwrap(),
        before: &before,
        after: &after,
    })
}

fn alignment(after: &Value, trapped: u64) -> Line {
    let results = format!("bus_adraln={trapped}");
    judge(after, &results, |evidence| evidence.alignment_checks(100))
}

fn locks(after: &Value, signals: u64) -> Line {
    let results = format!("bus_adraln={signals}");
    judge(after, &results, |evidence| evidence.split_locks(3))
}

#[test]
fn alignment_checks_are_compared_exactly() {
    for (trapped, counted, verdict) in [
        (100, 100, Verdict::Ok),
        (100, 99, Verdict::Failed),
        (100, 101, Verdict::Failed),
        (100, 0, Verdict::Failed),
        (0, 0, Verdict::NotTrapped),
        (0, 1, Verdict::Failed),
    ] {
        let line = alignment(&snapshot("warn", counted, 0), trapped);
        assert_eq!(line.verdict, verdict, "{line:?}");
        assert_eq!((line.trapped, line.counted), (Some(trapped), Some(counted)));
    }
}

#[test]
fn without_a_hook_its_refusals_are_told() {
    let mut after = snapshot("warn", 0, 0);
    let all = ["signal_generate", "handle_user_split_lock"];
    detach(&mut after, &all, "ruled out by --probe");
    let line = alignment(&after, 100);
    assert_eq!((line.verdict, line.hook), (Verdict::Failed, None));
    for name in all {
        assert!(line.reason.contains(name), "{}", line.reason);
    }
    let reading: Reading = serde_json::from_value(after).unwrap();
    let hooks = taken_away(&reading);
    assert_eq!(hooks.verdict, Verdict::Failed);
    assert!(hooks.reason.contains("signal_generate"), "{}", hooks.reason);
}

#[test]
fn a_hook_that_the_host_lacks_is_no_fault() {
    let mut after = snapshot("warn", 100, 0);
    detach(&mut after, &["handle_user_split_lock"], "no such function");
    assert_eq!(alignment(&after, 100).verdict, Verdict::Ok);
    let reading: Reading = serde_json::from_value(after).unwrap();
    assert_eq!(taken_away(&reading).verdict, Verdict::Ok);
}

#[test]
fn what_the_kernel_says_it_skipped_may_be_missing() {
    let mut after = snapshot("warn", 98, 0);
    probe(&mut after, "handle_user_split_lock")["missed"] = json!(2);
    let line = alignment(&after, 100);
    assert_eq!(line.verdict, Verdict::Ok, "{line:?}");
    assert!(line.reason.contains("skipped 2"), "{}", line.reason);
    probe(&mut after, "handle_user_split_lock")["missed"] = json!(1);
    assert_eq!(alignment(&after, 100).verdict, Verdict::Failed);
}

#[test]
fn a_limit_of_none_is_a_wish_and_a_full_table_is_a_fault() {
    let mut after = snapshot("warn", 0, 0);
    after["processes"] = json!([]);
    for (used, limit, verdict) in [
        (0, 0, Verdict::LeftOut),
        (5, 5, Verdict::Failed),
        (4, 5, Verdict::Failed),
    ] {
        after["tracked"]["process"] = json!({"used": used, "limit": limit});
        let line = alignment(&after, 100);
        assert_eq!(line.verdict, verdict, "{line:?}");
        let named = line.reason.contains("--limit.processes");
        assert_eq!(named, used == limit, "{line:?}");
    }
}

#[test]
fn split_locks_go_by_the_mode() {
    for (mode, signals, counted, verdict) in [
        ("off", 0, 0, Verdict::NotTrapped),
        ("unsupported", 0, 0, Verdict::NotTrapped),
        ("unsupported", 0, 1, Verdict::Failed),
        ("unknown", 0, 0, Verdict::NotTrapped),
        // The kernel need not detect each.
        ("warn", 0, 3, Verdict::Ok),
        ("warn", 0, 1, Verdict::Ok),
        ("warn", 0, 0, Verdict::Failed),
        ("warn", 0, 4, Verdict::Failed),
        ("ratelimit", 0, 3, Verdict::Ok),
        ("ratelimit", 0, 0, Verdict::Failed),
        ("fatal", 3, 3, Verdict::Ok),
        ("fatal", 3, 2, Verdict::Failed),
        ("fatal", 0, 0, Verdict::Failed),
    ] {
        let line = locks(&snapshot(mode, 0, counted), signals);
        assert_eq!(
            line.verdict, verdict,
            "{mode} {signals} {counted}: {line:?}"
        );
    }
    let mut logged = snapshot("warn", 0, 0);
    logged["kernel_log_reports"] = json!({"split_lock": 1});
    let line = locks(&logged, 0);
    assert!(line.reason.contains("log reported 1"), "{}", line.reason);
}

#[test]
fn a_guest_is_compared_in_three_ways() {
    let results = "shutdown=100 io=0 restart=1 intr=0";
    let verdicts = |after: &Value| {
        judge(after, results, |evidence| evidence.guest(100)).map(|line| line.verdict)
    };
    let returns = json!({"shutdown": 100, "restart": 1});
    let good = with_vm(snapshot("warn", 0, 0), 100, &returns, 200);
    assert_eq!(verdicts(&good), [Verdict::Ok; 3]);

    let mut lacks = good.clone();
    lacks["vms"][0]["ac_injected"] = json!(0);
    detach(&mut lacks, &["kvm_inj_exception"], "ruled out by --probe");
    assert_eq!(
        verdicts(&lacks),
        [Verdict::Failed, Verdict::Ok, Verdict::Ok]
    );

    // The right sum of the wrong reasons.
    let swapped = json!({"shutdown": 1, "restart": 100});
    let swapped = with_vm(snapshot("warn", 0, 0), 100, &swapped, 200);
    assert_eq!(verdicts(&swapped)[1], Verdict::Failed);

    let mut quiet = with_vm(snapshot("warn", 0, 0), 100, &json!({}), 0);
    let hooks = ["kvm_exit", "kvm_userspace_exit"];
    detach(&mut quiet, &hooks, "ruled out by --kvm-exits=off");
    assert_eq!(
        verdicts(&quiet),
        [Verdict::Ok, Verdict::LeftOut, Verdict::LeftOut]
    );

    let mut none = snapshot("warn", 0, 0);
    assert_eq!(verdicts(&none)[..2], [Verdict::Failed; 2]);
    none["tracked"]["vm"] = json!({"used": 0, "limit": 0});
    assert_eq!(verdicts(&none), [Verdict::LeftOut; 3]);
}

#[test]
fn a_guest_whose_loads_pass_is_not_trapped() {
    let after = with_vm(snapshot("warn", 0, 0), 0, &json!({"io": 100}), 100);
    let results = "shutdown=0 io=100 restart=0 intr=0";
    let verdicts = judge(&after, results, |evidence| evidence.guest(100)).map(|line| line.verdict);
    assert_eq!(verdicts, [Verdict::NotTrapped, Verdict::Ok, Verdict::Ok]);
}
