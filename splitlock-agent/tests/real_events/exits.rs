//! VM exits: what the agent shows is what the kernel itself counts, by a histogram of its own on
//! the same tracepoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use splitlock_common::exit_reason::{Isa, slot, slot_name};

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{Child, Event, kvm_guest::Guest},
    requirements::{
        self,
        Requirement::{ExitHistogram, Kvm, Root, VcpuTypes},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "exits::the_kernels_own_count_is_the_same",
        needs: &[Root, Kvm, ExitHistogram],
        run: the_kernels_own_count_is_the_same,
    },
    Test {
        name: "exits::the_raw_tracepoint_counts_the_same",
        needs: &[Root, Kvm, ExitHistogram, VcpuTypes],
        run: the_raw_tracepoint_counts_the_same,
    },
    Test {
        name: "exits::the_classic_tracepoint_counts_the_same",
        needs: &[Root, Kvm, ExitHistogram],
        run: the_classic_tracepoint_counts_the_same,
    },
    Test {
        name: "exits::two_vms_are_told_apart",
        needs: &[Root, Kvm, ExitHistogram],
        run: two_vms_are_told_apart,
    },
];

const KEYS: &str = "hist:keys=common_pid,exit_reason:size=4096";

/// Where the kernel lets histograms be made.
pub fn folder() -> PathBuf {
    PathBuf::from("/sys/kernel/tracing/events/kvm/kvm_exit")
}

/// The kernel's histogram of `kvm_exit`, as long as this value lives.
struct Histogram;

impl Histogram {
    fn start() -> Self {
        fs::write(folder().join("trigger"), KEYS).expect("the trigger is taken");
        Self
    }

    /// Exits by thread and reason.
    fn read(&self) -> BTreeMap<(u32, u32), u64> {
        let text = fs::read_to_string(folder().join("hist")).expect("the histogram is there");
        assert!(text.contains("Dropped: 0"), "{text}");
        text.lines().filter_map(parse).collect()
    }

    /// Exits of a process's threads, by the kernel's name of the reason.
    fn of(&self, pid: u32) -> BTreeMap<String, u64> {
        let threads: BTreeSet<u32> = fs::read_dir(format!("/proc/{pid}/task"))
            .expect("the VMM runs")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        let mut exits = BTreeMap::new();
        for ((tid, reason), count) in self.read() {
            if threads.contains(&tid) {
                let name = slot_name(isa(), slot(isa(), reason));
                *exits.entry(name.to_owned()).or_default() += count;
            }
        }
        exits
    }
}

impl Drop for Histogram {
    fn drop(&mut self) {
        // Not a panic: another one may be under way.
        let _ = fs::write(folder().join("trigger"), format!("!{KEYS}"));
    }
}

/// `{ common_pid:       1234, exit_reason:        120 } hitcount:         10`
fn parse(line: &str) -> Option<((u32, u32), u64)> {
    let numbers: Vec<u64> = line
        .strip_prefix('{')?
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let [tid, reason, count] = numbers[..] else {
        return None;
    };
    Some(((tid.try_into().ok()?, u32::try_from(reason).ok()?), count))
}

fn isa() -> u32 {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").expect("procfs is mounted");
    if cpuinfo.contains("AuthenticAMD") {
        Isa::Svm.number()
    } else {
        Isa::Vmx.number()
    }
}

fn shown(metrics: &Metrics, pid: u32) -> BTreeMap<String, u64> {
    let id = format!(r#"id="{pid}-"#);
    metrics
        .family("splitlock_vm_exits_total")
        .into_iter()
        .filter(|(series, _)| series.contains(&id))
        .filter_map(|(series, value)| {
            let reason = series.split(r#"reason=""#).nth(1)?.split('"').next()?;
            Some((reason.to_owned(), value as u64))
        })
        .collect()
}

/// Equal by reason; on a preemptible kernel but for what the kernel says that it skipped.
#[track_caller]
fn assert_same(metrics: &Metrics, histogram: &Histogram, pid: u32) {
    let (shown, counted) = (shown(metrics, pid), histogram.of(pid));
    assert!(counted.len() > 1, "{counted:?}");
    let missed = metrics.count(r#"splitlock_probe_missed_total{probe="kvm_exit"}"#);
    if requirements::is_preemptible() && missed > 0 {
        let sum = |exits: &BTreeMap<String, u64>| exits.values().sum::<u64>();
        let missing = sum(&counted).saturating_sub(sum(&shown));
        assert!(
            missing <= missed,
            "{shown:?} of {counted:?}, {missed} missed"
        );
    } else {
        assert_eq!(shown, counted);
    }
}

fn guest(count: u64, vcpus: u32) -> Event {
    Event::KvmGuest {
        guest: Guest::PortIo,
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
    let histogram = Histogram::start();
    for (count, vcpus) in [(1, 1), (1000, 1), (3000, 3)] {
        let mut child = Child::spawn(&guest(count, vcpus), "guest-exits");
        child.run();
        let metrics = agent.metrics();
        assert_same(&metrics, &histogram, child.pid());
        let io = shown(&metrics, child.pid());
        let io = io.get("ioio").or(io.get("io_instruction"));
        assert!(io.is_some_and(|io| *io >= count), "{io:?}");
    }
}

fn two_vms_are_told_apart() {
    let agent = Agent::start(&[]);
    let histogram = Histogram::start();
    let mut children = [
        Child::spawn(&guest(500, 2), "guest-twin"),
        Child::spawn(&guest(900, 1), "guest-twin"),
    ];
    for child in &mut children {
        child.go();
    }
    for child in &mut children {
        child.results();
    }
    let metrics = agent.metrics();
    for child in &children {
        assert_same(&metrics, &histogram, child.pid());
    }
}
