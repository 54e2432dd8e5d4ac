//! `doctor` on a real host: what it says is what the agent says, what the kernel was told, and what
//! can be seen without either.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{ProgramError, ProgramInfo, loaded_programs};
use serde_json::Value;

use super::{
    Test,
    agent::{Agent, binary, programs_of},
    events::trap_module::{Mode, ModeGuard, set_mode},
    requirements::Requirement::{BusLocks, Mitigation, Ratelimit, Root, TrapModule},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "doctor::says_what_the_agent_says",
        needs: &[Root],
        run: says_what_the_agent_says,
    },
    Test {
        name: "doctor::leaves_nothing_behind",
        needs: &[Root],
        run: leaves_nothing_behind,
    },
    Test {
        name: "doctor::without_rights_it_takes_the_agents_word",
        needs: &[Root],
        run: without_rights_it_takes_the_agents_word,
    },
    Test {
        name: "doctor::flags_of_run_count",
        needs: &[Root],
        run: flags_of_run_count,
    },
    Test {
        name: "doctor::finds_what_the_host_lacks",
        needs: &[Root],
        run: finds_what_the_host_lacks,
    },
    Test {
        name: "doctor::the_text_is_plain_in_a_pipe",
        needs: &[],
        run: the_text_is_plain_in_a_pipe,
    },
];

/// Those that change what the kernel does about locks.
pub const MODE_TESTS: &[Test] = &[
    Test {
        name: "doctor::is_right_about_split_locks_in_each_mode",
        needs: &[TrapModule],
        run: is_right_about_split_locks_in_each_mode,
    },
    Test {
        name: "doctor::is_right_about_bus_locks_in_each_mode",
        needs: &[TrapModule, BusLocks, Ratelimit],
        run: is_right_about_bus_locks_in_each_mode,
    },
    Test {
        name: "doctor::sees_the_mitigation",
        needs: &[TrapModule, Mitigation],
        run: sees_the_mitigation,
    },
];

/// Emulated, listing the kernel's symbols takes seconds, and on a busy machine many.
const DEADLINE: Duration = Duration::from_secs(120);

/// The limit of descriptors is the machine's, and not what these tests are about.
const FEW_SUBJECTS: &str = "--limit.vms=100";

struct Doctor {
    json: Value,
    status: Option<i32>,
}

impl Doctor {
    #[track_caller]
    fn ask(args: &[&str]) -> Self {
        Self::read(Command::new(binary()).args(["doctor", "--json"]).args(args))
    }

    #[track_caller]
    fn read(command: &mut Command) -> Self {
        let output = command
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let json: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{command:?}: {error}: {output:?}"));
        assert!(output.stderr.is_empty(), "{output:?}");
        let status = output.status.code();
        assert_eq!(
            json["verdict"]["exit_status"].as_i64(),
            status.map(i64::from),
            "the status is the verdict's"
        );
        Self { json, status }
    }

    fn has(&self, finding: &str) -> bool {
        self.findings().contains(finding)
    }

    fn findings(&self) -> BTreeSet<&str> {
        let findings = self.json["findings"].as_array().expect("a list");
        findings
            .iter()
            .filter_map(|finding| finding["id"].as_str())
            .collect()
    }

    /// How each hook is attached, and what its count means.
    fn hooks(&self) -> BTreeMap<String, (Option<String>, String)> {
        hooks(&self.json["facts"]["hooks"]["rows"])
    }
}

fn hooks(rows: &Value) -> BTreeMap<String, (Option<String>, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    rows.as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            let name = text(&row["probe"]).expect("a name");
            let counts = text(&row["counts"]).expect("what it counts");
            (name, (text(&row["via"]), counts))
        })
        .collect()
}

/// Asserts that both say the same. The agent reads the mode from memory once it has found it.
#[track_caller]
fn assert_agrees(agent: &Agent, doctor: &Doctor) {
    let detection = &doctor.json["facts"]["detection"];
    let start = Instant::now();
    let snapshot = loop {
        let snapshot = agent.snapshot();
        if snapshot["host"]["detection_source"] == detection["source"] {
            break snapshot;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "{detection} {}",
            snapshot["host"]
        );
        thread::sleep(Duration::from_millis(50));
    };
    let host = &snapshot["host"];
    assert_eq!(host["detection_mode"], detection["mode"]);
    assert_eq!(host["mitigation"], detection["mitigation"]);
    assert_eq!(host["sees"]["user"], detection["sees_user"]);
    assert_eq!(host["sees"]["guest"], detection["sees_guest"]);
    assert_eq!(host["kernel"], doctor.json["facts"]["kernel"]["release"]);
    for feature in ["split_lock_detect", "bus_lock_detect"] {
        assert_eq!(
            host["cpu_features"][feature],
            doctor.json["facts"]["cpu"][feature]
        );
    }
    assert_eq!(hooks(&snapshot["probes"]), doctor.hooks());
}

fn url(agent: &Agent) -> String {
    format!("--url=http://{}", agent.address())
}

fn says_what_the_agent_says() {
    let agent = Agent::start(&[]);
    let doctor = Doctor::ask(&[&url(&agent)]);
    assert_agrees(&agent, &doctor);
    assert_eq!(doctor.json["facts"]["hooks"]["known"], "attached");
    assert_eq!(doctor.json["facts"]["agent"]["state"]["is"], "healthy");
    for finding in [
        "no_agent",
        "agent_behind",
        "agent_elsewhere",
        "agent_unhealthy",
    ] {
        assert!(!doctor.has(finding), "{:?}", doctor.findings());
    }
    // An agent that ended is missed where one was named.
    let gone = url(&agent);
    drop(agent);
    let doctor = Doctor::ask(&[&gone]);
    assert!(doctor.has("no_agent") && doctor.status != Some(0));
}

fn leaves_nothing_behind() {
    let mounts = || fs::read_to_string("/proc/1/mountinfo").expect("procfs is mounted");
    let before = mounts();
    let mut process = Command::new(binary())
        .args(["doctor", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    // It holds the programs while it reads the kernel's symbols.
    let mut held = BTreeSet::new();
    let start = Instant::now();
    while process.try_wait().expect("doctor is our child").is_none() {
        held.extend(programs_of(process.id()));
        thread::sleep(Duration::from_millis(2));
        assert!(start.elapsed() < DEADLINE, "doctor did not end");
    }
    assert!(held.len() > 3, "it attached {held:?}");
    let start = Instant::now();
    loop {
        let loaded: BTreeSet<u32> = loaded_programs()
            .map(|program: Result<ProgramInfo, ProgramError>| {
                program.expect("a loaded program").id()
            })
            .collect();
        let left: Vec<&u32> = held.intersection(&loaded).collect();
        if left.is_empty() {
            break;
        }
        // The kernel frees them after a grace period.
        assert!(start.elapsed() < DEADLINE, "{left:?} are still loaded");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(mounts(), before);
}

fn without_rights_it_takes_the_agents_word() {
    // A binary in a folder that is root's alone could not be started by anybody else.
    let copy = std::env::temp_dir().join(format!("splitlock-doctor-{}", std::process::id()));
    fs::copy(binary(), &copy).expect("a copy of the binary");
    let nobody = |args: &[&str]| {
        Doctor::read(
            Command::new(&copy)
                .args(["doctor", "--json"])
                .args(args)
                .uid(65534)
                .gid(65534),
        )
    };
    let agent = Agent::start(&[]);
    let word = nobody(&[&url(&agent)]);
    let alone = nobody(&["--url=http://127.0.0.1:1"]);
    fs::remove_file(&copy).expect("the copy goes");

    assert_eq!(word.json["facts"]["hooks"]["known"], "agent");
    assert_eq!(word.hooks(), hooks(&agent.snapshot()["probes"]));
    assert!(word.has("rights_missing"));

    assert_eq!(alone.json["facts"]["hooks"]["known"], "planned");
    assert!(alone.has("rights_missing") && alone.has("no_agent"));
    // What it did not try it does not promise, and what is not there it knows.
    assert_ne!(alone.status, Some(0));
    assert_ne!(alone.json["verdict"]["user"], true);
    assert!(alone.hooks().values().all(|(via, _)| via.is_none()));
    let planned = alone.json["facts"]["hooks"]["rows"][0]["planned"].as_array();
    assert!(planned.is_some_and(|ways| !ways.is_empty()));
}

fn flags_of_run_count() {
    let doctor = Doctor::ask(&["--probe=kernel_log=none", "--kvm-exits=off"]);
    assert!(doctor.has("left_out"));
    let hooks = doctor.hooks();
    for hook in ["kernel_log", "kvm_exit", "kvm_userspace_exit"] {
        assert_eq!(hooks[hook].0, None, "{hook}");
    }
    assert!(hooks["signal_generate"].0.is_some());
    // Without this one no agent starts.
    let doctor = Doctor::ask(&["--probe=signal_generate=none"]);
    assert!(doctor.has("cannot_attach"), "{:?}", doctor.findings());
    assert_eq!(doctor.status, Some(2));
    // A running agent's own flags are no reason to start it anew.
    let agent = Agent::start(&["--kvm-exits=off"]);
    let doctor = Doctor::ask(&[&url(&agent)]);
    assert!(!doctor.has("agent_behind"), "{:?}", doctor.findings());
}

/// On a host as it is, and in the rig on hosts that lack something.
fn finds_what_the_host_lacks() {
    let doctor = Doctor::ask(&[]);
    let facts = &doctor.json["facts"];
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();

    let has_btf = fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false);
    assert_eq!(facts["btf"]["ok"], has_btf);
    assert_eq!(doctor.has("no_btf"), !has_btf);

    let lockdown = read("/sys/kernel/security/lockdown");
    let is_confidential = lockdown.contains("[confidentiality]");
    let booted = read("/proc/cmdline");
    let wanted = booted
        .split_whitespace()
        .find_map(|word| word.strip_prefix("lockdown="));
    if let Some(wanted) = wanted {
        assert_eq!(facts["kernel"]["lockdown"], wanted);
    }
    assert_eq!(doctor.has("lockdown_confidentiality"), is_confidential);
    for state in ["none", "integrity", "confidentiality"] {
        let is_it = lockdown.contains(&format!("[{state}]"));
        assert_eq!(facts["kernel"]["lockdown"] == state, is_it, "{lockdown}");
    }

    let is_mounted = read("/proc/self/mounts")
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("tracefs"));
    if is_mounted && !is_confidential {
        assert_eq!(facts["tracefs"]["state"], "mounted");
    } else if !is_confidential {
        assert_eq!(facts["tracefs"]["state"], "private");
    }

    let parameter = booted
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("split_lock_detect="))
        .next_back()
        .map(str::to_owned);
    assert_eq!(facts["kernel"]["parameter"].as_str(), parameter.as_deref());

    let vendor = ["kvm_intel", "kvm_amd"]
        .into_iter()
        .find(|name| fs::exists(format!("/sys/module/{name}")).unwrap_or(false));
    if let Some(vendor) = vendor {
        let modules = facts["kvm"]["modules"].as_array().expect("a list");
        assert!(modules.iter().any(|module| module == vendor));
        assert_eq!(doctor.json["verdict"]["runs_guests"], true);
    }

    let can_run = has_btf && !is_confidential;
    assert_eq!(facts["hooks"]["known"] == "attached", can_run);
    if !can_run {
        assert_eq!(doctor.status, Some(2));
        let agent = Command::new(binary())
            .args(["run", "--web.listen-address", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        assert_eq!(agent.status.code(), Some(1), "the agent refuses as well");
    }
}

fn the_text_is_plain_in_a_pipe() {
    let output = Command::new(binary())
        .args(["doctor", "--url=http://127.0.0.1:1"])
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let first = text.lines().next().expect("a first line");
    let word = first.split([':', ',', ' ']).next().expect("a word");
    let statuses = match word {
        "Yes" => [0, 1],
        "Partly" | "Unknown" => [1, 1],
        "No" => [2, 2],
        other => panic!("{other}"),
    };
    let status = output.status.code().expect("it ended by itself");
    assert!(statuses.contains(&status), "{first} {status}");
    assert!(!text.contains('\x1b'));
    let width = |line: &str| line.chars().count();
    for line in text.lines().filter(|line| !line.contains("# ")) {
        assert!(width(line) <= 80, "{line}");
    }
}

/// What is right in a mode: the answer, the status, who is noticed.
type Right = (&'static str, i32, Option<bool>, Option<bool>);

/// The agent reads the CPU's flags at its start, and the mode whenever it is asked.
#[track_caller]
fn assert_right(agent: &Agent, guard: &ModeGuard, mode: Mode, right: Right) -> Doctor {
    guard.change(mode).expect("the mode is set");
    let doctor = Doctor::ask(&[FEW_SUBJECTS, &url(agent)]);
    assert_agrees(agent, &doctor);
    let (answer, status, user, guest) = right;
    let verdict = &doctor.json["verdict"];
    let case = format!("{mode:?}: {verdict} {:#}", doctor.json["findings"]);
    assert_eq!(doctor.json["facts"]["detection"]["source"], "memory");
    assert_eq!(verdict["answer"], answer, "{case}");
    assert_eq!(doctor.status, Some(status), "{case}");
    assert_eq!(verdict["user"].as_bool(), user, "{case}");
    assert_eq!(verdict["guest"].as_bool(), guest, "{case}");
    doctor
}

fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let mut numbers = release.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("a kernel without a version: {release}"),
    }
}

const BLIND: Right = ("no", 2, Some(false), Some(false));

fn is_right_about_split_locks_in_each_mode() {
    let mut guard = set_mode(Mode::Warn).expect("the mode is set");
    // The emulated CPU has neither feature, whatever the kernel's variable says.
    let agent = Agent::start(&[FEW_SUBJECTS]);
    let doctor = assert_right(&agent, &guard, Mode::Fatal, BLIND);
    assert!(doctor.has("nothing_armed"));
    let doctor = assert_right(&agent, &guard, Mode::Off, BLIND);
    assert!(doctor.has("cpu_without_detection"));
    drop(agent);

    guard.set_cpu_flags(true, false).expect("the flags are set");
    let agent = Agent::start(&[FEW_SUBJECTS]);
    let seen = |answer, status| (answer, status, Some(true), Some(true));
    let doctor = if kernel() >= (5, 19) {
        assert_right(&agent, &guard, Mode::Warn, seen("yes", 0))
    } else {
        assert_right(&agent, &guard, Mode::Warn, seen("degraded", 1))
    };
    assert_eq!(doctor.has("first_per_thread"), kernel() < (5, 19));
    assert_eq!(doctor.has("warn_mode_lower_bound"), kernel() >= (5, 19));
    let doctor = assert_right(&agent, &guard, Mode::Fatal, seen("yes", 0));
    assert!(doctor.has("fatal_mode"));
    let doctor = assert_right(&agent, &guard, Mode::Off, BLIND);
    assert!(doctor.has("detection_off"));
}

fn is_right_about_bus_locks_in_each_mode() {
    let mut guard = set_mode(Mode::Warn).expect("the mode is set");
    let rate = Mode::Ratelimit { per_second: 100 };
    guard.set_cpu_flags(true, true).expect("the flags are set");
    let agent = Agent::start(&[FEW_SUBJECTS]);
    assert_right(
        &agent,
        &guard,
        Mode::Warn,
        ("yes", 0, Some(true), Some(true)),
    );
    // The emulated CPU is AMD's, whose bus-lock detection older kernels leave off.
    let armed = kernel() >= (6, 13);
    let (answer, user) = if armed {
        ("partly", Some(true))
    } else {
        ("unknown", None)
    };
    let right = (answer, 1, user, Some(false));
    let doctor = assert_right(&agent, &guard, rate, right);
    assert!(doctor.has("ratelimit_mode") && doctor.has("guests_unseen"));
    guard.set_cpu_flags(false, true).expect("the flags are set");
    drop(agent);
    let agent = Agent::start(&[FEW_SUBJECTS]);
    for mode in [Mode::Warn, Mode::Fatal] {
        let doctor = assert_right(&agent, &guard, mode, right);
        assert!(doctor.has("guests_unseen"));
        assert_eq!(doctor.has("bus_locks_perhaps_not_armed"), !armed);
    }
    assert_right(&agent, &guard, Mode::Off, BLIND);
}

fn sees_the_mitigation() {
    let mut guard = set_mode(Mode::Warn).expect("the mode is set");
    guard.set_cpu_flags(true, false).expect("the flags are set");
    let agent = Agent::start(&[FEW_SUBJECTS]);
    guard.set_mitigation(false).expect("the sysctl is root's");
    // Debian's 6.1 and 6.12 are without the change of 6.15, c929d08df8be.
    let right = if kernel() >= (6, 15) {
        ("yes", 0, Some(true), Some(true))
    } else {
        ("degraded", 1, Some(true), Some(true))
    };
    let doctor = assert_right(&agent, &guard, Mode::Warn, right);
    assert!(doctor.has("mitigation_off"));
    guard.set_mitigation(true).expect("the sysctl is root's");
    let right = ("yes", 0, Some(true), Some(true));
    let doctor = assert_right(&agent, &guard, Mode::Warn, right);
    assert!(!doctor.has("mitigation_off"));
}
