//! What the agent says of its own cost, and what the kernel says of it.

use std::{fs, io, path::PathBuf};

use super::{
    Test,
    agent::Agent,
    events::{Child, Event},
    requirements::{
        Requirement::{AlignmentChecks, BpfStatistics, Root},
        missed,
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "own_cost::runs_of_programs_are_shown_where_wanted",
        needs: &[Root, AlignmentChecks, BpfStatistics],
        run: runs_of_programs_are_shown_where_wanted,
    },
    Test {
        name: "own_cost::the_ring_buffer_is_measured",
        needs: &[Root, AlignmentChecks],
        run: the_ring_buffer_is_measured,
    },
    Test {
        name: "own_cost::kernel_memory_is_bounded_whatever_the_number_of_cpus",
        needs: &[Root],
        run: kernel_memory_is_bounded_whatever_the_number_of_cpus,
    },
];

fn checks(count: u64) -> Child {
    let mut child = Child::spawn(&Event::AlignmentCheck { count, threads: 1 }, "ac-cost");
    child.run();
    child
}

fn runs_of_programs_are_shown_where_wanted() {
    const COUNT: u64 = 5000;
    let quiet = Agent::start(&[]);
    let agent = Agent::start(&["--probe-statistics"]);
    let runs = r#"splitlock_probe_runs_total{probe="signal_generate"}"#;
    let seconds = r#"splitlock_probe_run_seconds_total{probe="signal_generate"}"#;
    let before = agent.metrics();
    let _child = checks(COUNT);
    let after = agent.metrics();
    let skipped = missed(&after, "signal_generate");
    let run = after.count(runs) - before.count(runs);
    // Signals of other tests run it too.
    assert!(run + skipped >= COUNT, "{run} of {COUNT}");
    let time = after.get(seconds).expect("a time") - before.get(seconds).expect("a time");
    let nanoseconds = time * 1e9 / run as f64;
    assert!((10.0..100_000.0).contains(&nanoseconds), "{nanoseconds} ns");
    // The kernel counts for all programs, but nobody asked this agent to show it.
    assert_eq!(quiet.metrics().get(runs), None);
}

fn the_ring_buffer_is_measured() {
    let agent = Agent::start(&[]);
    let metrics = agent.metrics();
    let size = metrics.count("splitlock_record_ring_size_bytes");
    assert_eq!(size, 512 * 1024);
    let _child = checks(1);
    let metrics = agent.wait_for("a record", |metrics| {
        metrics.count("splitlock_record_ring_peak_bytes") > 0
    });
    assert!(metrics.count("splitlock_record_ring_peak_bytes") <= size);
    agent.wait_for("an empty ring", |metrics| {
        metrics.count("splitlock_record_ring_used_bytes") == 0
    });
}

/// A map as the kernel describes it.
struct KernelMap {
    id: u64,
    kind: u64,
    value_size: u64,
    bytes: u64,
}

fn maps(agent: &Agent) -> Vec<KernelMap> {
    let folder = PathBuf::from(format!("/proc/{}/fdinfo", agent.pid()));
    let mut maps: Vec<KernelMap> = fs::read_dir(folder)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .expect("the agent runs")
        .into_iter()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|text| {
            let field = |name| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().parse().ok()
            };
            Some(KernelMap {
                id: field("map_id:")?,
                kind: field("map_type:")?,
                value_size: field("value_size:")?,
                bytes: field("memlock:")?,
            })
        })
        .collect();
    maps.sort_by_key(|map| map.id);
    maps.dedup_by_key(|map| map.id);
    maps
}

/// docs/operations.md states what is checked here.
fn kernel_memory_is_bounded_whatever_the_number_of_cpus() {
    const PER_CPU_KINDS: [u64; 4] = [5, 6, 10, 21];
    for (vcpus, limit_mib) in [("4096", 17), ("16384", 47)] {
        let agent = Agent::start(&["--limit.vcpus", vcpus]);
        let maps = maps(&agent);
        assert!(maps.len() >= 10, "{} maps", maps.len());
        let per_cpu = maps.iter().filter(|map| PER_CPU_KINDS.contains(&map.kind));
        let bytes: u64 = per_cpu.map(|map| map.value_size).sum();
        assert!(bytes <= 8, "{bytes} bytes on each CPU");
        let sum: u64 = maps.iter().map(|map| map.bytes).sum();
        assert!(
            sum > 0 && sum < limit_mib << 20,
            "{vcpus} vCPUs: {sum} bytes"
        );
        eprintln!("{vcpus} vCPUs: {} KiB of kernel memory", sum / 1024);
    }
}
