//! Answers for tests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    answer::{self, Answer},
    picture::Picture,
};

/// An agent's answer `second` seconds after 1000, with these VMs and processes.
pub fn answer(second: f64, vms: &[Value], processes: &[Value]) -> Answer {
    answer::read(body(second, vms, processes).as_bytes()).unwrap()
}

/// The same as its body.
pub fn body(second: f64, vms: &[Value], processes: &[Value]) -> String {
    let body = json!({
        "schema": 1,
        "taken_at": 1000.0 + second,
        "host": {
            "kernel": "6.18.0",
            "detection_mode": "warn",
            "detection_source": "memory",
            "sees": {"user": true, "guest": false},
            "mitigation": true,
        },
        "host_traps": [
            {"origin": "user", "trap": "split_lock", "outcome": "warned", "count": (10.0 * second) as u64},
            {"origin": "guest", "trap": "split_lock", "outcome": "sigbus", "count": 0},
        ],
        "processes": processes,
        "vms": vms,
        "lost": {"record_rate_limit": (second * 2.0) as u64, "record_ring_full": 0},
        "tracked": {
            "vm": {"used": vms.len(), "limit": 10_000},
            "process": {"used": processes.len(), "limit": 10_000},
        },
        "probes": [
            {"probe": "signal_generate", "via": "raw_tracepoint", "counts": "every_trap"},
            {"probe": "handle_bus_lock", "via": null, "counts": "none"},
        ],
        "recent": [
            {"time": 1000.0 + second - 3.0, "event": "alignment_check", "probe": "signal_generate",
             "pid": 7, "tid": 8, "comm": "batch", "cpu": 1, "vcpu": null, "ip": "0x401000"},
        ],
    });
    body.to_string()
}

/// One picture after the other, from answers that come as their clock says.
pub fn pictures(answers: impl IntoIterator<Item = Answer>) -> Vec<Picture> {
    let start = Instant::now();
    let mut pictures: Vec<Picture> = vec![];
    for answer in answers {
        let at = start + Duration::from_secs_f64(answer.taken_at - 1000.0);
        pictures.push(Picture::new(answer, at, pictures.last()));
    }
    pictures
}

/// A VM with so many split locks, and exits.
pub fn vm(pid: u32, name: &str, locks: u64, exits: u64) -> Value {
    json!({
        "pid": pid, "start_ticks": 100, "vm": name, "id": format!("id-of-{name}"), "vmm": "qemu",
        "exe": "/usr/bin/qemu-system-x86_64", "cgroup": "/machine.slice/x.scope", "unit": "x.scope",
        "container_id": "", "pod_uid": "", "started_at": 900.0, "alive": true, "vcpus": 2,
        "traps": [{"origin": "guest", "trap": "split_lock", "outcome": "warned", "count": locks}],
        "ac_injected": 0, "delay_ns": locks * 10_000_000,
        "last_trap": 1000.0, "exits": {"hlt": exits / 4, "msr_write": exits - exits / 4},
        "userspace_exits": {"io": exits / 10},
    })
}

/// A process with so many alignment checks.
pub fn process(pid: u32, comm: &str, checks: u64) -> Value {
    json!({
        "pid": pid, "start_ticks": 100, "comm": comm, "exe": "/usr/bin/batch", "cgroup": "/a",
        "unit": "batch.service", "container_id": "", "pod_uid": "", "started_at": 900.0,
        "alive": true, "traps": [], "alignment_checks": checks, "delay_ns": 0, "last_trap": null,
        "sites": [{
            "event": "alignment_check", "ip": "0x401136", "records": 12, "last": 1001.0,
            "code": {
                "file": "/usr/bin/batch", "offset": "0x1136", "function": "add_up",
                "function_offset": "0x16", "source": "batch.c:42", "bytes": "8b 00",
                "instruction": "mov eax,[rax]",
                "operand": {"address": "0x7ffc0000103e", "modulo_64": 62, "size": 4,
                            "crosses_line": true},
            },
        }],
    })
}
