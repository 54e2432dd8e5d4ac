//! Where the traps are: the instruction, its function and its operand, also when the process is gone.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Test,
    agent::Agent,
    events::{Child, Event},
    requirements::Requirement::{AlignmentChecks, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "sites::the_guilty_instruction_is_named",
        needs: &[Root, AlignmentChecks],
        run: the_guilty_instruction_is_named,
    },
    Test {
        name: "sites::who_dies_of_it_is_looked_at_in_its_file",
        needs: &[Root, AlignmentChecks],
        run: who_dies_of_it_is_looked_at_in_its_file,
    },
    Test {
        name: "sites::unknown_subjects_are_not_found",
        needs: &[Root],
        run: unknown_subjects_are_not_found,
    },
];

/// The function that makes alignment checks.
const FUNCTION: &str = "misaligned_load";

fn checks(count: u64) -> Event {
    Event::AlignmentCheck { count, threads: 1 }
}

/// The row of a process in the snapshot, once what is at its first site is known.
#[track_caller]
pub fn resolved(agent: &Agent, pid: u32) -> Value {
    let start = Instant::now();
    loop {
        let snapshot = agent.snapshot();
        let rows = snapshot["processes"].as_array().expect("rows").clone();
        let row = rows.into_iter().find(|row| row["pid"] == pid);
        if let Some(row) = row
            && row["sites"][0]["code"].is_object()
        {
            return row;
        }
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "nothing is known of process {pid}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn the_guilty_instruction_is_named() {
    let agent = Agent::start(&[]);
    let mut child = Child::spawn(&checks(5), "site-lives");
    let pid = child.pid();
    child.run();
    let row = resolved(&agent, pid);
    assert_eq!(row["sites"].as_array().map(Vec::len), Some(1), "{row}");
    let site = &row["sites"][0];
    assert_eq!(site["event"], "alignment_check");
    assert_eq!(site["records"], 5);
    let code = &site["code"];
    let text = |key: &str| code[key].as_str().unwrap_or_default();
    assert!(text("function").ends_with(FUNCTION), "{code}");
    assert!(text("source").contains("alignment_check.rs:"), "{code}");
    // The load is of 4 bytes from an odd address, inside a cache line.
    assert!(text("instruction").starts_with("mov "), "{code}");
    assert_eq!(code["operand"]["modulo_64"], 1, "{code}");
    assert_eq!(code["operand"]["size"], 4, "{code}");
    assert_eq!(code["operand"]["crosses_line"], false, "{code}");
    assert_eq!(code["missing"], Value::Null, "{code}");
    let path = format!(
        "/api/v1/subjects/{pid}-{}",
        row["start_ticks"].as_u64().expect("a time")
    );
    let detail: Value = serde_json::from_str(&agent.get(&path)).expect("JSON");
    assert_eq!(detail["process"]["pid"], pid);
    assert_eq!(detail["vm"], Value::Null);
    assert_eq!(detail["sites"][0], *site);
    assert_eq!(detail["other_records"], 0);
    let recent = detail["recent"].as_array().expect("records");
    assert_eq!(recent.len(), 5);
    for story in recent {
        assert_eq!(story["ip"], site["ip"]);
        let function = story["function"].as_str().unwrap_or_default();
        assert!(function.contains(FUNCTION), "{story}");
    }
    child.end();
}

fn who_dies_of_it_is_looked_at_in_its_file() {
    let agent = Agent::start(&[]);
    // By this one the agent knows the file with that build id.
    let mut child = Child::spawn(&checks(1), "site-teaches");
    let pid = child.pid();
    child.run();
    resolved(&agent, pid);
    child.end();
    for _ in 0..10 {
        let mut child = Child::spawn(&Event::AlignmentCheckFatal, "site-dies");
        let pid = child.pid();
        child.go();
        let row = resolved(&agent, pid);
        let code = &row["sites"][0]["code"];
        assert_eq!(code["operand"]["modulo_64"], 1, "{row}");
        if code["build_id"].is_string() {
            let function = code["function"].as_str().unwrap_or_default();
            assert!(function.ends_with(FUNCTION), "{row}");
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    // Inside `signal_generate` interrupts are off, where the kernel tells the place in the file to one
    // program at a time for each CPU (`bpf_mmap_unlock_get_irq_work`): to the agent that came first.
    assert!(other_agents(agent.pid()) > 0, "the kernel tells no file");
    eprintln!("sites::who_dies_of_it…: other agents run, and one of them was told instead");
}

/// How many agents run besides one.
fn other_agents(own: u32) -> usize {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .filter(|comm| comm.trim_end() == "splitlock-agent")
        .count()
}

fn unknown_subjects_are_not_found() {
    let agent = Agent::start(&[]);
    for subject in ["1-1", "x", "1", "1-2-3", "-", "18446744073709551616-1"] {
        let url = format!("http://{}/api/v1/subjects/{subject}", agent.address());
        match ureq::get(&url).call() {
            Err(ureq::Error::StatusCode(404)) => {}
            other => panic!("{url}: {other:?}"),
        }
    }
}
