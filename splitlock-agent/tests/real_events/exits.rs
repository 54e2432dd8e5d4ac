//! VM exits: what the agent shows is what the kernel itself counts on the same tracepoint, and what
//! the guest's code makes.

use std::{collections::BTreeMap, fs};

use splitlock_common::exit_reason::{Isa, OTHER, slot, slot_name};

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{Child, Event, kvm_guest::Guest},
    guests::{assert_exits, vm},
    kernel_count::{KernelCount, Tracepoint},
    requirements::{
        self,
        Requirement::{ExitCounters, Kvm, Root, VcpuTypes},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "exits::the_kernels_own_count_is_the_same",
        needs: &[Root, Kvm, ExitCounters],
        run: the_kernels_own_count_is_the_same,
    },
    Test {
        name: "exits::the_raw_tracepoint_counts_the_same",
        needs: &[Root, Kvm, ExitCounters, VcpuTypes],
        run: the_raw_tracepoint_counts_the_same,
    },
    Test {
        name: "exits::the_classic_tracepoint_counts_the_same",
        needs: &[Root, Kvm, ExitCounters],
        run: the_classic_tracepoint_counts_the_same,
    },
    Test {
        name: "exits::each_reason_is_counted_as_often_as_it_was_made",
        needs: &[Root, Kvm, ExitCounters],
        run: each_reason_is_counted_as_often_as_it_was_made,
    },
    Test {
        name: "exits::two_vms_are_told_apart",
        needs: &[Root, Kvm, ExitCounters],
        run: two_vms_are_told_apart,
    },
    Test {
        name: "exits::two_vms_of_one_process_are_one",
        needs: &[Root, Kvm, ExitCounters],
        run: two_vms_of_one_process_are_one,
    },
];

/// The tracepoint of all exits.
pub const KVM_EXIT: Tracepoint = Tracepoint("kvm_exit");

/// Filters for all reasons that have a name.
pub fn reasons() -> impl Iterator<Item = (String, &'static str)> {
    let isa = isa();
    // SVM's nested paging is at 0x400; what is above no machine of the rig makes.
    (0..0x410)
        .map(move |reason| (reason, slot_name(isa, slot(isa, reason))))
        .filter(|(_, name)| *name != OTHER)
        .map(|(reason, name)| (format!("exit_reason == {reason}"), name))
}

fn isa() -> u32 {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").expect("procfs is mounted");
    if cpuinfo.contains("AuthenticAMD") {
        Isa::Svm.number()
    } else {
        Isa::Vmx.number()
    }
}

/// The exits of a process by reason, as the agent shows them in a family.
fn shown<'a>(metrics: &'a Metrics, family: &str, pid: u32) -> BTreeMap<&'a str, u64> {
    let id = format!(r#"id="{pid}-"#);
    metrics
        .family(family)
        .into_iter()
        .filter(|(series, _)| series.contains(&id))
        .filter_map(|(series, value)| {
            let reason = series.split(r#"reason=""#).nth(1)?.split('"').next()?;
            Some((reason, value as u64))
        })
        .collect()
}

const EXITS: &str = "splitlock_vm_exits_total";

/// The exits are those that the kernel counted.
#[track_caller]
pub fn assert_same(metrics: &Metrics, pid: u32, kernel: &KernelCount) {
    assert_same_in(metrics, EXITS, "kvm_exit", pid, kernel);
}

/// A family is what the kernel counted, by reason; on a preemptible kernel but for what it says that
/// it skipped.
#[track_caller]
pub fn assert_same_in(
    metrics: &Metrics,
    family: &str,
    probe: &str,
    pid: u32,
    kernel: &KernelCount,
) {
    let (shown, counted) = (shown(metrics, family, pid), kernel.read());
    assert!(!counted.is_empty(), "the kernel counted nothing");
    let missed = requirements::missed(metrics, probe);
    if missed > 0 {
        let missing = counted.iter().map(|(reason, count)| {
            let shown = shown.get(reason).copied().unwrap_or_default();
            count.checked_sub(shown).expect("none is invented")
        });
        let missing: u64 = missing.sum();
        assert!(
            missing <= missed && shown.keys().all(|reason| counted.contains_key(reason)),
            "{shown:?} of {counted:?}, {missed} missed"
        );
    } else {
        assert_eq!(shown, counted);
    }
}

/// As many exits as the guest's code makes, by the names of both instruction sets.
#[track_caller]
pub fn assert_made(metrics: &Metrics, pid: u32, names: &[&str], made: u64) {
    let shown: u64 = shown(metrics, EXITS, pid)
        .iter()
        .filter(|(reason, _)| names.contains(reason))
        .map(|(_, count)| count)
        .sum();
    let missed = requirements::missed(metrics, "kvm_exit");
    assert!(
        shown <= made && made <= shown + missed,
        "{shown} {names:?} of {made}, {missed} missed"
    );
}

/// An access to a port, by the names of both instruction sets.
pub const IO: [&str; 2] = ["ioio", "io_instruction"];
const NESTED_PAGING: [&str; 3] = ["npf", "ept_violation", "ept_misconfig"];

fn guest(guest: Guest, count: u64, vcpus: u32) -> Event {
    Event::KvmGuest {
        guest,
        count,
        vcpus,
    }
}

fn the_kernels_own_count_is_the_same() {
    count_as_the_kernel_does(&Agent::start(&[]));
}

fn the_raw_tracepoint_counts_the_same() {
    attached_by("raw_tracepoint");
}

fn the_classic_tracepoint_counts_the_same() {
    attached_by("tracepoint");
}

fn attached_by(via: &str) {
    let agent = Agent::start(&["--probe", &format!("kvm_exit={via}")]);
    assert_eq!(agent.via("kvm_exit"), via);
    count_as_the_kernel_does(&agent);
}

fn count_as_the_kernel_does(agent: &Agent) {
    for (count, vcpus) in [(1, 1), (1000, 1), (3000, 3)] {
        let mut child = Child::spawn(&guest(Guest::PortIo, count, vcpus), "guest-exits");
        let kernel = KernelCount::start(&KVM_EXIT, child.pid(), reasons());
        child.run();
        let metrics = agent.metrics();
        assert_same(&metrics, child.pid(), &kernel);
        assert_made(&metrics, child.pid(), &IO, count);
    }
}

fn each_reason_is_counted_as_often_as_it_was_made() {
    let agent = Agent::start(&[]);
    for (count, vcpus) in [(1, 1), (100, 1), (900, 3)] {
        let mut child = Child::spawn(&guest(Guest::EachReason, count, vcpus), "guest-each");
        let (pid, vm) = (child.pid(), vm(child.pid(), "guest-each"));
        let kernel = KernelCount::start(&KVM_EXIT, pid, reasons());
        let results = child.run();
        let metrics = agent.metrics();
        assert_same(&metrics, pid, &kernel);
        assert_made(&metrics, pid, &IO, count);
        assert_made(&metrics, pid, &["hlt"], count);
        assert_made(&metrics, pid, &["cpuid"], count);
        // A read and a write, which SVM does not tell apart.
        assert_made(&metrics, pid, &["msr", "msr_read", "msr_write"], 2 * count);
        // A new page and an address without one; the guest's code and tables are new once, too.
        let counts = kernel.read();
        let paging = counts
            .iter()
            .filter(|(reason, _)| NESTED_PAGING.contains(reason));
        let paging: u64 = paging.map(|(_, count)| count).sum();
        assert!(paging >= 2 * count, "{counts:?}");
        for reason in ["io", "hlt", "mmio"] {
            assert_eq!(results.get(reason), count, "{reason}");
        }
        assert_exits(&metrics, &vm, &results);
    }
}

fn two_vms_are_told_apart() {
    let agent = Agent::start(&[]);
    let mut children = [(500, 2), (900, 1)].map(|(count, vcpus)| {
        let child = Child::spawn(&guest(Guest::PortIo, count, vcpus), "guest-twin");
        let kernel = KernelCount::start(&KVM_EXIT, child.pid(), reasons());
        (child, kernel, count)
    });
    for (child, ..) in &mut children {
        child.go();
    }
    for (child, ..) in &mut children {
        child.results();
    }
    let metrics = agent.metrics();
    for (child, kernel, count) in &children {
        assert_same(&metrics, child.pid(), kernel);
        assert_made(&metrics, child.pid(), &IO, *count);
    }
}

/// A VM is its VMM's process: two in one are shown as their sum, though each has a vCPU 0.
fn two_vms_of_one_process_are_one() {
    let agent = Agent::start(&[]);
    let event = Event::TwoKvmGuests {
        guest: Guest::EachReason,
        counts: [300, 500],
    };
    let mut child = Child::spawn(&event, "guest-two");
    let (pid, vm) = (child.pid(), vm(child.pid(), "guest-two"));
    let kernel = KernelCount::start(&KVM_EXIT, pid, reasons());
    let results = child.run();
    let metrics = agent.metrics();
    assert_same(&metrics, pid, &kernel);
    assert_made(&metrics, pid, &["cpuid"], 800);
    assert_eq!(results.get("io"), 800);
    assert_exits(&metrics, &vm, &results);
    let snapshot = agent.snapshot();
    let vms = snapshot["vms"].as_array().expect("vms is a list");
    let rows: Vec<_> = vms.iter().filter(|row| row["pid"] == pid).collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["vcpus"], 2);
}
