//! `splitlock-agent selftest`, with an agent that runs and with its own.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Test,
    agent::{Agent, binary},
    events::{
        Child, Event,
        trap_module::{Mode, set_mode},
    },
    requirements::Requirement::{self, AlignmentChecks, Kvm, Root, TrapModule},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "selftest::it_passes_with_an_agent_that_runs",
        needs: &[Root],
        run: it_passes_with_an_agent_that_runs,
    },
    Test {
        name: "selftest::it_passes_with_an_agent_of_its_own",
        needs: &[Root],
        run: it_passes_with_an_agent_of_its_own,
    },
    Test {
        name: "selftest::it_fails_when_a_probe_is_taken_away",
        needs: &[Root, Kvm],
        run: it_fails_when_a_probe_is_taken_away,
    },
    Test {
        name: "selftest::it_names_the_step_that_nobody_counted",
        needs: &[Root, Kvm, AlignmentChecks],
        run: it_names_the_step_that_nobody_counted,
    },
    Test {
        name: "selftest::without_a_required_hook_it_cannot_run",
        needs: &[Root],
        run: without_a_required_hook_it_cannot_run,
    },
    Test {
        name: "selftest::it_fails_when_the_agent_has_no_place",
        needs: &[Root, AlignmentChecks],
        run: it_fails_when_the_agent_has_no_place,
    },
    Test {
        name: "selftest::it_passes_with_another_way_to_attach",
        needs: &[Root],
        run: it_passes_with_another_way_to_attach,
    },
    Test {
        name: "selftest::what_an_agent_is_not_to_show_is_left_out",
        needs: &[Root, Kvm],
        run: what_an_agent_is_not_to_show_is_left_out,
    },
    Test {
        name: "selftest::it_says_beforehand_what_it_will_do",
        needs: &[Root],
        run: it_says_beforehand_what_it_will_do,
    },
    Test {
        name: "selftest::where_no_agent_answers_it_cannot_run",
        needs: &[Root],
        run: where_no_agent_answers_it_cannot_run,
    },
    Test {
        name: "selftest::no_child_outlives_it",
        needs: &[Root],
        run: no_child_outlives_it,
    },
];

/// In the rig, where the mode of detection can be set.
pub const MODE_TESTS: &[Test] = &[Test {
    name: "selftest::split_locks_are_not_made_unasked_where_they_are_punished",
    needs: &[Root, TrapModule],
    run: split_locks_are_not_made_unasked_where_they_are_punished,
}];

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("selftest").args(args).stdin(Stdio::null());
    command
}

fn selftest(args: &[&str]) -> Output {
    command(args).output().expect("the agent's binary starts")
}

/// The report, with its lines by name, and the exit status.
struct Report {
    value: Value,
    steps: BTreeMap<String, Value>,
    status: Option<i32>,
}

impl Report {
    #[track_caller]
    fn of(args: &[&str]) -> Self {
        let output = selftest(&[args, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {said}"));
        let steps = value["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .map(|step| {
                (
                    step["step"].as_str().expect("a name").to_owned(),
                    step.clone(),
                )
            })
            .collect();
        Self {
            value,
            steps,
            status: output.status.code(),
        }
    }

    #[track_caller]
    fn verdict(&self, step: &str) -> &str {
        self.steps
            .get(step)
            .and_then(|line| line["verdict"].as_str())
            .unwrap_or_else(|| panic!("no {step} in {:#}", self.value))
    }

    /// Passed, and each step as this machine allows.
    #[track_caller]
    fn assert_passed(&self) {
        assert_eq!(self.status, Some(0), "{:#}", self.value);
        assert_eq!(self.verdict("hooks"), "ok");
        let raised = if can(AlignmentChecks) {
            "ok"
        } else {
            "not_trapped"
        };
        assert_eq!(self.verdict("alignment checks"), raised, "{:#}", self.value);
        // No machine that these tests run on has a CPU that detects them.
        assert_eq!(
            self.verdict("split locks"),
            "not_trapped",
            "{:#}",
            self.value
        );
        if can(Kvm) {
            assert_eq!(self.verdict("guest's #AC"), raised, "{:#}", self.value);
            assert_eq!(self.verdict("guest's returns"), "ok", "{:#}", self.value);
            let exits = if tells_of_exits() {
                "ok"
            } else {
                "not_trapped"
            };
            assert_eq!(self.verdict("guest's exits"), exits, "{:#}", self.value);
        } else {
            assert_eq!(self.verdict("guest"), "left_out", "{:#}", self.value);
        }
    }
}

fn can(need: Requirement) -> bool {
    need.check().is_ok()
}

/// Whether KVM's driver here fires `kvm_exit`.
fn tells_of_exits() -> bool {
    ["kvm_intel", "kvm_amd"]
        .iter()
        .any(|name| Path::new("/sys/module").join(name).exists())
}

fn url(agent: &Agent) -> String {
    format!("http://{}", agent.address())
}

fn it_passes_with_an_agent_that_runs() {
    let agent = Agent::start(&[]);
    let report = Report::of(&["--url", &url(&agent)]);
    report.assert_passed();
    if can(AlignmentChecks) {
        for count in ["made", "trapped", "counted"] {
            assert_eq!(report.steps["alignment checks"][count], 100, "{count}");
        }
    }
    // The agent has them, under the names that the child gave itself.
    let metrics = agent.metrics();
    if can(Kvm) {
        let vms = metrics.with_label("vm", "selftest-guest");
        assert!(!vms.is_empty(), "{metrics:#?}");
    }
    // A person is told the same.
    let output = selftest(&["--url", &url(&agent)]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("split locks"), "{text}");
    let told = text.contains("All that was trapped was counted.")
        || text.contains("so nothing is proved.");
    assert!(told, "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

fn it_passes_with_an_agent_of_its_own() {
    let report = Report::of(&["--own"]);
    report.assert_passed();
    assert_eq!(report.value["agent"], "an agent started for this test");
}

fn it_fails_when_a_probe_is_taken_away() {
    for hook in ["kvm_userspace_exit", "kvm_inj_exception"] {
        let choice = format!("{hook}=none");
        let report = Report::of(&["--own", "--probe", &choice]);
        assert_eq!(report.status, Some(1), "{:#}", report.value);
        assert_eq!(report.value["failed"], true);
        let reason = report.steps["hooks"]["reason"].to_string();
        assert!(reason.contains(hook), "{reason}");
    }
    let report = Report::of(&["--own", "--probe", "kvm_userspace_exit=none"]);
    assert_eq!(report.verdict("guest's returns"), "failed");
    if tells_of_exits() {
        let report = Report::of(&["--own", "--probe", "kvm_exit=none"]);
        assert_eq!(report.status, Some(1), "{:#}", report.value);
        assert_eq!(report.verdict("guest's exits"), "failed");
    }
}

fn it_names_the_step_that_nobody_counted() {
    let agent = Agent::start(&["--probe", "kvm_inj_exception=none"]);
    let report = Report::of(&["--url", &url(&agent)]);
    assert_eq!(report.status, Some(1), "{:#}", report.value);
    assert_eq!(report.verdict("guest's #AC"), "failed");
    assert_eq!(report.verdict("alignment checks"), "ok");
    assert_eq!(report.steps["guest's #AC"]["trapped"], 100);
    assert_eq!(report.steps["guest's #AC"]["counted"], 0);
}

/// A hook without which no agent starts is a reason, too.
fn without_a_required_hook_it_cannot_run() {
    let output = selftest(&["--own", "--probe", "signal_generate=none"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("signal_generate"), "{said}");
}

/// The agent's only place is another's, who lives on.
fn it_fails_when_the_agent_has_no_place() {
    let agent = Agent::start(&["--limit.processes", "1"]);
    let one = Event::AlignmentCheck {
        count: 1,
        threads: 1,
    };
    let mut first = Child::spawn(&one, "first");
    first.run();
    agent.wait_for("the first one's series", |metrics| {
        !metrics
            .family("splitlock_process_alignment_checks_total")
            .is_empty()
    });
    let report = Report::of(&["--url", &url(&agent)]);
    assert_eq!(report.status, Some(1), "{:#}", report.value);
    assert_eq!(report.verdict("alignment checks"), "failed");
    let reason = report.steps["alignment checks"]["reason"].to_string();
    assert!(reason.contains("raise --limit.processes"), "{reason}");
}

fn it_passes_with_another_way_to_attach() {
    let agent = Agent::start(&["--probe", "signal_generate=tracepoint"]);
    assert_eq!(agent.via("signal_generate"), "tracepoint");
    Report::of(&["--url", &url(&agent)]).assert_passed();
}

fn what_an_agent_is_not_to_show_is_left_out() {
    let report = Report::of(&["--own", "--limit.processes", "0", "--kvm-exits", "off"]);
    assert_eq!(report.status, Some(0), "{:#}", report.value);
    if can(AlignmentChecks) {
        assert_eq!(report.verdict("alignment checks"), "left_out");
        assert_eq!(report.verdict("guest's #AC"), "ok");
    }
    assert_eq!(report.verdict("guest's returns"), "left_out");
    let report = Report::of(&["--own", "--limit.vms", "0"]);
    assert_eq!(report.status, Some(0), "{:#}", report.value);
    for step in ["guest's #AC", "guest's returns", "guest's exits"] {
        assert_eq!(report.verdict(step), "left_out", "{step}");
    }
}

fn it_says_beforehand_what_it_will_do() {
    let agent = Agent::start(&[]);
    let url = url(&agent);
    let output = selftest(&["--url", &url, "--dry-run"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        "alignment checks: 100 ",
        "split locks: 3 ",
        "guest: ",
        "alerts",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("verdict"), "{text}");
    let report = Report::of(&["--url", &url, "--dry-run"]);
    assert_eq!(report.verdict("alignment checks"), "planned");
    for step in ["made", "counted"] {
        let value = &report.steps["alignment checks"][step];
        assert_eq!(value.is_null(), step == "counted", "{:#}", report.value);
    }
    // It starts no child, which would live until its events are counted. (Other tests' are elsewhere.)
    let mut process = command(&["--url", &url, "--dry-run"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the agent's binary starts");
    while process.try_wait().expect("our child").is_none() {
        assert_eq!(event_maker_of(process.id()), None);
    }
}

/// The rig's CPU traps none whatever the mode is, which is a fault where the mode promises it.
fn split_locks_are_not_made_unasked_where_they_are_punished() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let agent = Agent::start(&[]);
    let url = url(&agent);
    agent.wait_for("the mode", |metrics| {
        metrics.get(r#"splitlock_host_detection_mode{mode="fatal"}"#) == Some(1.0)
    });
    let report = Report::of(&["--url", &url]);
    assert_eq!(report.status, Some(0), "{:#}", report.value);
    assert_eq!(report.verdict("split locks"), "left_out");
    let reason = report.steps["split locks"]["reason"].to_string();
    assert!(
        reason.contains("SIGBUS") && reason.contains("--split-lock"),
        "{reason}"
    );
    let report = Report::of(&["--url", &url, "--split-lock"]);
    assert_eq!(report.status, Some(1), "{:#}", report.value);
    assert_eq!(report.verdict("split locks"), "failed");
    assert_eq!(report.steps["split locks"]["made"], 3);
}

fn where_no_agent_answers_it_cannot_run() {
    // Closed again at once.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let output = selftest(&["--url", &url]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("splitlock-agent: "), "{said}");
    assert!(said.contains(&url), "{said}");
}

/// Killed at any time, it leaves no child behind.
fn no_child_outlives_it() {
    for wait in [300, 600, 900] {
        let mut process = command(&["--own"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent's binary starts");
        thread::sleep(Duration::from_millis(wait));
        let pid = process.id();
        // It may have ended by itself.
        let _ = process.kill();
        process.wait().expect("our child");
        let start = Instant::now();
        while let Some(child) = event_maker_of(pid) {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{child} lives on"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The child of a selftest, which has its number among its arguments.
fn event_maker_of(parent: u32) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").expect("procfs is mounted");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.any(|word| word == b"selftest-event")
                && words.any(|word| word == parent.to_string().as_bytes())
        })
}
