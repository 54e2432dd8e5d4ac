//! What the agent's processes may do after the start, and what is left when one of them dies.

pub mod acts;

use std::{
    collections::BTreeMap,
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{Child, Event},
    processes::checks,
    requirements::Requirement::{AlignmentChecks, Landlock, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "privileges::the_worker_can_do_its_work_and_nothing_else",
        needs: &[Root, Landlock],
        run: the_worker_can_do_its_work_and_nothing_else,
    },
    Test {
        name: "privileges::the_helpers_can_look_and_nothing_else",
        needs: &[Root, Landlock],
        run: the_helpers_can_look_and_nothing_else,
    },
    Test {
        name: "privileges::a_running_agent_has_given_them_up_and_names_fully",
        needs: &[Root, AlignmentChecks],
        run: a_running_agent_has_given_them_up_and_names_fully,
    },
    Test {
        name: "privileges::they_can_be_kept",
        needs: &[Root],
        run: they_can_be_kept,
    },
    Test {
        name: "privileges::without_the_resolver_counts_go_on_until_another_names",
        needs: &[Root, AlignmentChecks],
        run: without_the_resolver_counts_go_on_until_another_names,
    },
    Test {
        name: "privileges::a_resolver_that_stands_still_is_replaced",
        needs: &[Root, AlignmentChecks],
        run: a_resolver_that_stands_still_is_replaced,
    },
    Test {
        name: "privileges::without_the_keeper_counts_go_on_without_names",
        needs: &[Root, AlignmentChecks],
        run: without_the_keeper_counts_go_on_without_names,
    },
    Test {
        name: "privileges::no_process_outlives_the_agent",
        needs: &[Root],
        run: no_process_outlives_the_agent,
    },
];

const DEADLINE: Duration = Duration::from_secs(20);
const EVENTS: u64 = 1000;

/// What a process of this role could do: act to error, 0 for none.
#[track_caller]
fn tried(role: &str) -> BTreeMap<String, i32> {
    static TRIALS: AtomicU32 = AtomicU32::new(0);
    let trial = TRIALS.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("splitlock-acts-{}-{trial}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let set = |path: &str, mode| {
        fs::set_permissions(folder.join(path), Permissions::from_mode(mode)).expect("permissions");
    };
    for (file, mode) in [("open-to-all", 0o666), ("closed", 0o600)] {
        fs::write(folder.join(file), "secret").expect("a file");
        set(file, mode);
    }
    set("", 0o777);
    // It makes nothing, as nobody tells it to.
    let victim = Child::spawn(
        &Event::AlignmentCheck {
            count: 1,
            threads: 1,
        },
        "victim",
    );
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["act", role, &victim.pid().to_string()])
        .arg(&folder)
        .stdin(Stdio::null())
        .output()
        .expect("this program starts");
    drop(victim);
    fs::remove_dir_all(&folder).expect("the folder goes");
    let text = String::from_utf8(output.stdout).expect("text");
    let acts = text
        .lines()
        .map(|line| {
            let (act, error) = line.split_once(' ').expect("two words");
            (act.to_owned(), error.parse().expect("a number"))
        })
        .collect();
    println!("{role}: {acts:?}");
    acts
}

/// Those that root can do, as far as this machine lets it, and `role` cannot, are all but `allowed`.
#[track_caller]
fn assert_confined(role: &str, allowed: &[&str]) {
    let of_root = tried("root");
    assert!(acts::ROLES.contains(&role));
    let mut of_role = tried(role);
    assert_eq!(of_role.remove("kept"), Some(0), "all is given up");
    assert_eq!(of_role.len(), 16);
    for (act, error) in of_role {
        assert_eq!(of_root.get(&act), Some(&0), "root can {act}");
        if allowed.contains(&act.as_str()) {
            assert_eq!(error, 0, "{role} can {act}");
        } else {
            assert!(
                [libc::EPERM, libc::EACCES].contains(&error),
                "{role} must not {act}: {error}"
            );
        }
    }
}

fn the_worker_can_do_its_work_and_nothing_else() {
    assert_confined("worker", &[]);
}

fn the_helpers_can_look_and_nothing_else() {
    // A tenant's code is read from its memory, by a descriptor that opens no way to write.
    let looks = ["read_a_file", "see_the_program", "open_memory"];
    let [first, second, third] = looks;
    assert_confined("keeper", &[first, second, third, "fork"]);
    assert_confined("resolver", &looks);
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// Children of a process, by name.
fn children(parent: u32, name: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| status(*pid, "PPid").is_some_and(|found| found == parent.to_string()))
        .filter(|pid| status(*pid, "Name").is_some_and(|found| found == name))
        .collect()
}

#[track_caller]
fn keeper(agent: &Agent) -> u32 {
    let found = children(agent.pid(), "splitlock-keep");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

fn resolvers(agent: &Agent) -> Vec<u32> {
    children(keeper(agent), "splitlock-who")
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: it is a process of this test's own agent, which has not been waited for.
    let result = unsafe { libc::kill(pid.cast_signed(), signal) };
    assert_eq!(result, 0, "{pid}");
}

#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The value of a label of a process's info series.
fn label(metrics: &Metrics, pid: u32, label: &str) -> Option<String> {
    let pid = format!(r#"pid="{pid}""#);
    let family = metrics.family("splitlock_process_info");
    let series = family.keys().find(|series| series.contains(&pid))?;
    let (_, rest) = series.split_once(&format!(r#"{label}=""#))?;
    Some(rest.split('"').next()?.to_owned())
}

fn up(helper: &str) -> String {
    format!(r#"splitlock_helper_up{{helper="{helper}"}}"#)
}

fn deaths(helper: &str) -> String {
    format!(r#"splitlock_helper_deaths_total{{helper="{helper}"}}"#)
}

/// One that traps, and lives on.
fn trapping(comm: &str) -> Child {
    let event = Event::AlignmentCheck {
        count: EVENTS,
        threads: 1,
    };
    let mut child = Child::spawn(&event, comm);
    child.run();
    child
}

fn a_running_agent_has_given_them_up_and_names_fully() {
    let agent = Agent::start(&["--privileges.user", "61235"]);
    let child = trapping("priv-named");
    let pid = child.pid();
    // On a busy machine a scrape does not wait for the name.
    let series = checks("priv-named", pid);
    let metrics = agent.wait_for("its name", |metrics| metrics.count(&series) == EVENTS);
    let own = env::current_exe().expect("this program");
    assert_eq!(label(&metrics, pid, "exe").as_deref(), own.to_str());
    let keeper = keeper(&agent);
    let mut of_helpers = vec![keeper];
    of_helpers.extend(resolvers(&agent));
    assert!(
        of_helpers.len() >= 2,
        "a resolver is there before it is asked"
    );
    for pid in of_helpers.iter().copied().chain([agent.pid()]) {
        let is = |field: &str| status(pid, field).unwrap_or_default();
        assert_eq!(is("Uid"), "61235\t61235\t61235\t61235");
        assert_eq!(is("Gid"), "61235\t61235\t61235\t61235");
        assert_eq!(is("Groups"), "");
        assert_eq!(is("NoNewPrivs"), "1");
        assert_eq!(is("Seccomp"), "2");
        let capabilities = if pid == agent.pid() {
            "0000000000000000"
        } else {
            // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE.
            "0000010000080004"
        };
        assert_eq!(is("CapEff"), capabilities, "{pid}");
        assert_eq!(is("CapPrm"), capabilities);
        assert_eq!(is("CapBnd"), capabilities);
        assert_eq!(is("CapAmb"), "0000000000000000");
    }
    for pid in of_helpers {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("its files")
            .flatten()
        {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            let link = link.to_string_lossy();
            assert!(!link.contains("bpf"), "{pid}: {link}");
            let number: u32 = entry
                .file_name()
                .to_string_lossy()
                .parse()
                .expect("a number");
            assert!(
                number < 3 || !link.starts_with("socket:"),
                "{pid}: {number} {link}"
            );
        }
    }
    for helper in ["keeper", "resolver", "symbolizer"] {
        assert_eq!(metrics.get(&up(helper)), Some(1.0));
        assert_eq!(metrics.get(&deaths(helper)), Some(0.0));
    }
    let (ended, _) = agent.end(libc::SIGTERM);
    assert!(ended.success(), "{ended}");
}

fn they_can_be_kept() {
    let agent = Agent::start(&["--privileges", "keep"]);
    assert_eq!(status(agent.pid(), "Uid").as_deref(), Some("0\t0\t0\t0"));
    assert_ne!(
        status(agent.pid(), "CapEff").as_deref(),
        Some("0000000000000000")
    );
    assert_eq!(children(agent.pid(), "splitlock-keep"), [0_u32; 0]);
    let metrics = agent.metrics();
    assert_eq!(metrics.get(&up("keeper")), None);
    let info = metrics.family("splitlock_privileges_info");
    let series = info.keys().next().expect("it is told");
    assert!(series.contains(r#"user="0""#), "{series}");
    let warned = agent.log().iter().any(|line| {
        line["level"] == "WARN"
            && line["message"]
                .as_str()
                .is_some_and(|text| text.contains("--privileges=keep"))
    });
    assert!(warned);
}

fn without_the_resolver_counts_go_on_until_another_names() {
    let agent = Agent::start(&[]);
    let mut made = vec![];
    for round in 0..6 {
        for pid in resolvers(&agent) {
            // It may have been replaced since.
            // SAFETY: see `signal`; an ended one is the keeper's zombie until that has seen it.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
        }
        made.push(trapping(&format!("priv-round-{round}")));
    }
    agent.wait_for("a death", |metrics| metrics.count(&deaths("resolver")) > 0);
    for (round, child) in made.iter().enumerate() {
        let series = checks(&format!("priv-round-{round}"), child.pid());
        agent.wait_for("its count", |metrics| metrics.count(&series) == EVENTS);
    }
    let metrics = agent.metrics();
    assert_eq!(metrics.get(&up("keeper")), Some(1.0));
    let told = agent.log().iter().any(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("tells who subjects are has died"))
    });
    assert!(told, "{:?}", agent.log());
    // Later ones are named fully again, after at most the longest pause.
    wait_until("a full name", || {
        let child = trapping("priv-later");
        let exe = label(&agent.metrics(), child.pid(), "exe");
        child.end();
        exe.is_some_and(|exe| !exe.is_empty())
    });
    assert_eq!(agent.metrics().get(&up("resolver")), Some(1.0));
}

fn a_resolver_that_stands_still_is_replaced() {
    let agent = Agent::start(&[]);
    // Once one has named somebody, the one that names is among them.
    let first = trapping("priv-before");
    agent.wait_for("a full name", |metrics| {
        label(metrics, first.pid(), "exe").is_some_and(|exe| !exe.is_empty())
    });
    let stopped = resolvers(&agent);
    for pid in &stopped {
        signal(*pid, libc::SIGSTOP);
    }
    let child = trapping("priv-stopped");
    let series = checks("priv-stopped", child.pid());
    // By the kernel side's word, once its patience is over.
    let metrics = agent.wait_for("its count", |metrics| metrics.count(&series) == EVENTS);
    assert!(metrics.count(r#"splitlock_lost_total{cause="identity_overdue"}"#) > 0);
    let second = trapping("priv-after");
    agent.wait_for("a full name", |metrics| {
        label(metrics, second.pid(), "exe").is_some_and(|exe| !exe.is_empty())
    });
    // One that was looking for VMs has more time.
    wait_until("the end of one that stood still", || {
        let living = resolvers(&agent);
        stopped.iter().any(|pid| !living.contains(pid))
    });
}

fn without_the_keeper_counts_go_on_without_names() {
    let agent = Agent::start(&[]);
    let keeper = keeper(&agent);
    let below = children(keeper, "splitlock-who");
    signal(keeper, libc::SIGKILL);
    agent.wait_for("its absence", |metrics| {
        metrics.get(&up("keeper")) == Some(0.0) && metrics.get(&up("resolver")) == Some(0.0)
    });
    for pid in below {
        wait_until("the end of a resolver", || !lives(pid));
    }
    let child = trapping("priv-no-keeper");
    let pid = child.pid();
    let series = checks("priv-no-keeper", pid);
    let metrics = agent.wait_for("its count", |metrics| metrics.count(&series) == EVENTS);
    assert_eq!(label(&metrics, pid, "exe").as_deref(), Some(""));
    let told = agent.log().iter().any(|line| line["level"] == "ERROR");
    assert!(told, "{:?}", agent.log());
    assert_eq!(
        children(agent.pid(), "splitlock-keep"),
        [0_u32; 0],
        "it is waited for"
    );
    let (ended, _) = agent.end(libc::SIGTERM);
    assert!(ended.success(), "{ended}");
}

/// Whether a process is there and no zombie.
fn lives(pid: u32) -> bool {
    status(pid, "State").is_some_and(|state| !state.starts_with('Z'))
}

fn no_process_outlives_the_agent() {
    for last in [libc::SIGKILL, libc::SIGTERM] {
        let agent = Agent::start(&[]);
        let keeper = keeper(&agent);
        let mut helpers = resolvers(&agent);
        helpers.push(keeper);
        agent.end(last);
        for pid in helpers {
            wait_until("the end of a helper", || !lives(pid));
        }
    }
}
