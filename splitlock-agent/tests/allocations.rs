//! The heap on the paths that many subjects or many traps take: counted, as nothing else tells.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use prometheus::process_collector::ProcessCollector;
use splitlock_agent::{
    export::exposition,
    subjects::{
        identity::Identity,
        vmm::{Evidence, VmNaming, Vmm},
    },
    table::{
        Limits, Table,
        snapshot::{HostFacts, PrivilegeFacts, SCHEMA, Snapshot},
    },
};
use splitlock_common::{
    Event,
    ledger::{EVENT_SLOTS, SubjectKey, TrapEntry},
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get() + layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get() + size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATIONS.get();
    let result = work();
    (result, ALLOCATIONS.get() - before)
}

fn key(tgid: u32) -> SubjectKey {
    SubjectKey {
        tgid,
        reserved: 0,
        start_ns: 10_000_000 * u64::from(tgid),
    }
}

fn entry(locks: u64) -> TrapEntry {
    let mut counts = [0; EVENT_SLOTS];
    counts[Event::UserSplitLockWarned.index()] = locks;
    TrapEntry {
        counts,
        delay_ns: [locks, 0],
        first_ns: 1,
        last_ns: [locks, 0],
        cgroup_id: 1,
        comm: *b"offender\0\0\0\0\0\0\0\0",
        record_window_ns: 0,
        record_window_count: 0,
    }
}

/// With so many named processes, each with a lock.
fn table(processes: u32) -> Table {
    let mut table = Table::new(Limits {
        processes: 100_000,
        vms: 0,
        workloads: 10,
        retention: Duration::from_secs(900),
    });
    for tgid in 1..=processes {
        table.read_trap(key(tgid), &entry(1));
    }
    name_all(&mut table);
    table
}

fn name_all(table: &mut Table) {
    for question in table.take_unnamed() {
        table.name(&Identity {
            subject: question.subject,
            comm: question.comm.clone(),
            exe: Some("/usr/bin/offender".to_owned()),
            command_line: None,
            cgroup: None,
            vm: VmNaming {
                name: question.comm,
                uuid: None,
                vmm: Vmm::Other,
                evidence: Evidence::Comm,
            },
            is_vm: false,
            missing: vec![],
        });
    }
}

fn snapshot(table: &Table) -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        taken_at: 0.0,
        host: HostFacts {
            kernel: String::new(),
            cpu_features: BTreeMap::new(),
            detection_mode: "warn",
            detection_source: "memory",
            sees: BTreeMap::new(),
            mitigation: None,
            changes: 0,
        },
        host_traps: table.host_traps(),
        processes: table.processes(),
        vms: table.vms(),
        workloads: table.workloads(),
        overflow_traps: table.overflow(),
        overflow_subjects: table.overflow_subjects(),
        lost: table.lost(),
        tracked: table.tracked(),
        ledgers: BTreeMap::new(),
        record_ring: None,
        privileges: PrivilegeFacts::dropped(),
        probes: vec![],
        kernel_log_reports: BTreeMap::new(),
        kernel_log_history: None,
        recent: vec![],
    }
}

#[test]
fn a_known_subjects_news_take_none() {
    let mut table = table(1000);
    let ((), count) = allocations(|| {
        for tgid in 1..=1000 {
            assert!(!table.read_trap(key(tgid), &entry(2)));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn a_row_of_a_snapshot_takes_one() {
    let count = |processes| {
        let table = table(processes);
        allocations(|| snapshot(&table)).1
    };
    let (few, many) = (count(100), count(1100));
    // The list of its kinds of traps, and now and then the list of rows grows.
    assert!(many - few <= 1000 + 10, "{few} and {many}");
}

#[test]
fn a_series_takes_none() {
    let own = ProcessCollector::for_self();
    let count = |processes| {
        let table = table(processes);
        let snapshot = snapshot(&table);
        allocations(|| exposition::encode(&snapshot, &own).unwrap()).1
    };
    let (few, many) = (count(100), count(4100));
    // The text grows.
    assert!(many <= few + 16, "{few} and {many}");
}

/// Through the limits of processes and workloads, each of another name.
#[test]
fn a_crowd_of_offenders_leaves_nothing() {
    let mut table = Table::new(Limits {
        processes: 100,
        vms: 0,
        workloads: 100,
        retention: Duration::from_secs(900),
    });
    let mut come_and_go = |numbers: std::ops::Range<u32>| {
        for tgid in numbers {
            let mut entry = entry(1);
            entry.comm[..8].copy_from_slice(format!("{tgid:08x}").as_bytes());
            table.read_trap(key(tgid), &entry);
            if tgid.is_multiple_of(2) {
                name_all(&mut table);
            }
            table.end(key(tgid).into(), Instant::now());
            name_all(&mut table);
        }
        BYTES.get()
    };
    let few = come_and_go(1..1000);
    let many = come_and_go(1000..20_000);
    assert!(many < few + 10_000, "{few}, then {many} bytes");
}
