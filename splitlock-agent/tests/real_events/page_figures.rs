//! Figures for the page that no agent has counted: those of its pictures, and of crowds.

use serde_json::{Value, json};

/// The snapshot of the number `tick`, as JSON: the counts of the busy grow with it.
pub fn snapshot(tick: u64, processes: Vec<Value>, vms: Vec<Value>, recent: Vec<Value>) -> Value {
    let trap = |origin: &str, trap: &str, outcome: &str, count: u64| json!({"origin": origin, "trap": trap, "outcome": outcome, "count": count});
    let probe = |probe: &str, via: Option<&str>, counts: &str, refused: &[&str]| json!({"probe": probe, "via": via, "counts": counts, "refused": refused, "missed": via.map(|_| 0), "runs": null});
    let full = |used: u64, limit: u64| json!({"used": used, "limit": limit});
    json!({
        "schema": 1,
        "taken_at": now(tick),
        "host": {
            "kernel": "6.12.0",
            "cpu_features": {"split_lock_detect": true, "bus_lock_detect": true},
            "detection_mode": "warn", "detection_source": "memory",
            "sees": {"user": true, "guest": true}, "mitigation": true, "changes": 0,
        },
        "host_traps": [
            trap("user", "split_lock", "warned", 18 + tick / 4),
            trap("user", "split_lock", "sigbus", 0),
            trap("user", "bus_lock", "warned", 0),
            trap("user", "bus_lock", "sigbus", 0),
            trap("user", "bus_lock", "throttled", 0),
            trap("guest", "split_lock", "warned", guest_locks(tick)),
            trap("guest", "split_lock", "sigbus", 0),
            trap("guest", "bus_lock", "reported", 0),
        ],
        "processes": processes, "vms": vms, "workloads": [],
        "overflow_traps": {"process": 0, "vm": 0, "workload": 0},
        "overflow_subjects": {"process": 0, "vm": 0, "workload": 0},
        "lost": {"record_ring_full": 0, "record_rate_limit": 812 + tick},
        "tracked": {"process": full(14, 1000), "vm": full(6, 4096), "workload": full(9, 1000)},
        "ledgers": {"traps": full(16, 13_288), "exits": full(24, 4096)},
        "record_ring": {"used_bytes": 0, "peak_bytes": 9_216, "size_bytes": 262_144},
        "probes": [
            probe("handle_user_split_lock", Some("fentry"), "lower_bound", &[]),
            probe("handle_guest_split_lock", Some("fentry"), "lower_bound", &[]),
            probe("handle_bus_lock", Some("fentry"), "every_trap", &[]),
            probe("split_lock_warn", Some("kprobe"), "none", &["fentry: the kernel's BTF lacks the function"]),
            probe("kvm_exit", Some("raw_tracepoint"), "every_trap", &[]),
            probe("kernel_log", None, "none", &["a hook counts the same"]),
        ],
        "kernel_log_reports": {}, "kernel_log_history": null,
        "recent": recent,
    })
}

/// When a tick is: two seconds after the one before.
fn now(tick: u64) -> f64 {
    1_750_000_000.0 + 2.0 * tick as f64
}

fn guest_locks(tick: u64) -> u64 {
    let wave = (tick as f64 / 6.0).sin() * 90.0;
    41_000 + tick * 260 + wave as u64
}

pub fn site(event: &str, ip: &str, records: u64, code: Option<Value>) -> Value {
    let mut site = json!({"event": event, "ip": ip, "records": records, "last": now(0)});
    if let Some(code) = code {
        site["code"] = code;
    }
    site
}

pub fn offending_code() -> Value {
    json!({
        "file": "/usr/lib/telemetry/libringbuf.so.2", "build_id": "9f2c51d07be84a3c6e1d5a90b7f4c8e21d30a6b5",
        "offset": "0x4a7c", "function": "ring_publish", "function_offset": "0x5c",
        "source": "ring.c:212", "bytes": "f0 48 0f c1 07", "instruction": "lock xadd [rdi],rax",
        "operand": {"address": "0x7f31c8a0103c", "modulo_64": 60, "size": 8, "crosses_line": true},
        "missing": null,
    })
}

/// A process, or a VM by its VMM.
pub struct Row<'a> {
    pub pid: u64,
    pub name: &'a str,
    pub unit: &'a str,
    pub is_alive: bool,
}

impl Row<'_> {
    /// What processes and VMs have in common.
    fn common(&self, traps: Value, delay_ns: u64) -> Value {
        let Self {
            pid,
            name,
            unit,
            is_alive,
        } = self;
        json!({
            "pid": pid, "start_ticks": pid * 10, "exe": format!("/usr/bin/{name}"), "command_line": format!("{name} --config /etc/{name}.conf"),
            "cgroup": format!("/system.slice/{unit}"), "unit": unit, "container_id": "", "pod_uid": "", "missing": [],
            "started_at": now(0) - 90_000.0, "alive": is_alive, "traps": traps, "delay_ns": delay_ns, "last_trap": now(0),
        })
    }

    pub fn process(&self, locks: u64, checks: u64, sites: &[Value]) -> Value {
        let traps = if locks == 0 {
            json!([])
        } else {
            json!([{"origin": "user", "trap": "split_lock", "outcome": "warned", "count": locks}])
        };
        let mut row = self.common(traps, locks * 20_000_000);
        row["comm"] = json!(self.name);
        row["alignment_checks"] = json!(checks);
        row["sites"] = json!(sites);
        row
    }

    pub fn vm(&self, locks: u64, exits: u64, sites: &[Value]) -> Value {
        let traps = if locks == 0 {
            json!([])
        } else {
            json!([{"origin": "guest", "trap": "split_lock", "outcome": "warned", "count": locks}])
        };
        let mut row = self.common(traps, locks * 20_000_000);
        row["exe"] = json!("/usr/bin/qemu-system-x86_64");
        row["command_line"] = json!(format!(
            "/usr/bin/qemu-system-x86_64 -name guest={},debug-threads=on -machine q35,accel=kvm",
            self.name
        ));
        row["vm"] = json!(self.name);
        row["id"] = json!(format!("0c8f3a52-7d1e-4c7b-9a39-5f2f1c{:06x}", self.pid));
        row["vmm"] = json!("qemu");
        row["named_by"] = json!("command_line");
        row["vcpus"] = json!(4);
        row["vcpu_threads"] = json!({});
        row["ac_injected"] = json!(0);
        row["exits"] = json!({"msr_write": exits * 5, "hlt": exits * 3, "external_interrupt": exits * 2, "ept_misconfig": exits, "io_instruction": exits / 3});
        row["userspace_exits"] = json!({"io": exits / 4, "mmio": exits / 9});
        row["sites"] = json!(sites);
        row
    }
}

/// A host with one bad guest and one bad service among good ones.
pub fn host(tick: u64) -> Value {
    let guest_site = site(
        "guest_split_lock_warned",
        "0xffffffffc0a1f2d7",
        5_210 + tick,
        None,
    );
    let vms = [
        ("build-7", 4_120, 310),
        ("web-1", 4_410, 850),
        ("web-2", 4_411, 790),
        ("db-primary", 4_502, 1_220),
        ("cache-3", 5_077, 95),
        ("runner-12", 5_230, 12),
    ]
    .map(|(name, pid, exits)| {
        let unit = format!("machine-qemu-{name}.scope");
        let row = Row {
            pid,
            name,
            unit: &unit,
            is_alive: name != "runner-12",
        };
        let age = if name == "runner-12" {
            900
        } else {
            20_000 + tick * 2
        };
        if name == "build-7" {
            row.vm(
                guest_locks(tick),
                exits * age,
                std::slice::from_ref(&guest_site),
            )
        } else {
            row.vm(0, exits * age, &[])
        }
    });
    let user_site = site(
        "user_split_lock_warned",
        "0x7f31d2004a7c",
        18 + tick / 4,
        Some(offending_code()),
    );
    let processes = vec![
        Row { pid: 2_214, name: "telemetryd", unit: "telemetryd.service", is_alive: true }.process(18 + tick / 4, 0, &[user_site]),
        Row { pid: 31_772, name: "legacy-import", unit: "import.service", is_alive: true }.process(0, 640 + tick * 3, &[site("alignment_check", "0x55d0c0de1149", 64, Some(json!({"function": "read_record", "function_offset": "0x19", "instruction": "mov eax,[rsi+2]", "file": "/usr/bin/legacy-import", "offset": "0x1149"})))]),
        Row { pid: 30_118, name: "batch-worker", unit: "batch.service", is_alive: false }.process(0, 3, &[]),
    ];
    snapshot(
        tick,
        processes,
        vms.to_vec(),
        (0..24).map(|number| story(tick, number)).collect(),
    )
}

fn story(tick: u64, number: u64) -> Value {
    let time = now(tick) - number as f64 * 0.37;
    if number % 6 == 4 {
        json!({"time": time, "event": "user_split_lock_warned", "probe": "handle_user_split_lock", "pid": 2_214, "tid": 2_231, "comm": "telemetryd", "cpu": number % 8, "vcpu": null, "ip": "0x7f31d2004a7c", "function": "ring_publish+0x5c"})
    } else {
        json!({"time": time, "event": "guest_split_lock_warned", "probe": "handle_guest_split_lock", "pid": 4_120, "tid": 4_131 + number % 4, "comm": format!("CPU {}/KVM", number % 4), "cpu": number % 8, "vcpu": number % 4, "ip": "0xffffffffc0a1f2d7"})
    }
}

/// The detail of the bad service.
pub fn detail() -> Value {
    let site = site(
        "user_split_lock_warned",
        "0x7f31d2004a7c",
        30,
        Some(offending_code()),
    );
    let recent: Vec<Value> = (0..3).map(|number| story(80, 4 + 6 * number)).collect();
    json!({"schema": 1, "taken_at": now(80), "process": null, "vm": null, "sites": [site], "other_records": 0, "recent": recent})
}
