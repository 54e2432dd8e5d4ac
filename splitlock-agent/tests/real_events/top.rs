//! `top`, of real agents and real events: as a program in a terminal, and in a pipe.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    Test,
    agent::{Agent, binary},
    events::{Child, Event, kvm_guest::Guest},
    pseudo_terminal::PseudoTerminal,
    requirements::Requirement::{AlignmentChecks, Kvm, PseudoTerminals, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "top::one_table_has_the_counts_of_a_process",
        needs: &[Root, AlignmentChecks],
        run: one_table_has_the_counts_of_a_process,
    },
    Test {
        name: "top::one_table_has_the_counts_of_a_guest",
        needs: &[Root, Kvm, AlignmentChecks],
        run: one_table_has_the_counts_of_a_guest,
    },
    Test {
        name: "top::a_rate_is_what_was_made_in_a_time",
        needs: &[Root, AlignmentChecks],
        run: a_rate_is_what_was_made_in_a_time,
    },
    Test {
        name: "top::a_person_finds_who_traps",
        needs: &[Root, AlignmentChecks, PseudoTerminals],
        run: a_person_finds_who_traps,
    },
    Test {
        name: "top::the_terminal_is_given_back_however_it_ends",
        needs: &[Root, PseudoTerminals],
        run: the_terminal_is_given_back_however_it_ends,
    },
    Test {
        name: "top::an_agent_may_go_and_come_back",
        needs: &[Root, AlignmentChecks, PseudoTerminals],
        run: an_agent_may_go_and_come_back,
    },
    Test {
        name: "top::without_an_agent_it_has_probes_of_its_own",
        needs: &[Root, AlignmentChecks, PseudoTerminals],
        run: without_an_agent_it_has_probes_of_its_own,
    },
    Test {
        name: "top::without_an_agent_and_rights_it_says_so",
        needs: &[Root],
        run: without_an_agent_and_rights_it_says_so,
    },
    Test {
        name: "top::what_is_no_agent_is_told",
        needs: &[],
        run: what_is_no_agent_is_told,
    },
];

fn top(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("top").args(args).env_remove("NO_COLOR");
    command
}

fn of(agent: &Agent, args: &[&str]) -> Command {
    let mut command = top(&["--url", &format!("http://{}", agent.address())]);
    command.args(args);
    command
}

#[track_caller]
fn output(mut command: Command) -> Output {
    command.output().expect("top's binary starts")
}

#[track_caller]
fn text(command: Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn json(command: Command) -> Value {
    serde_json::from_str(&text(command)).expect("JSON")
}

/// The row of a process id.
#[track_caller]
fn row<'a>(answer: &'a Value, kind: &str, pid: u32) -> &'a Value {
    answer[kind]
        .as_array()
        .expect("a list")
        .iter()
        .find(|row| row["pid"] == pid)
        .unwrap_or_else(|| panic!("pid {pid} in {answer:#}"))
}

fn checks(count: u64) -> Event {
    Event::AlignmentCheck { count, threads: 1 }
}

fn one_table_has_the_counts_of_a_process() {
    let agent = Agent::start(&[]);
    let mut child = Child::spawn(&checks(1234), "ac-top-once");
    child.run();
    let table = text(of(&agent, &["--once", "--interval", "200ms"]));
    let line = table
        .lines()
        .find(|line| line.starts_with("ac-top-once "))
        .unwrap_or_else(|| panic!("{table}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words.contains(&"1234"), "{line}");
    assert!(words.contains(&child.pid().to_string().as_str()), "{line}");
    // A pipe has no control characters, whatever the names.
    assert!(!table.contains('\u{1b}'));

    let answer = json(of(&agent, &["--json", "--interval", "200ms"]));
    assert_eq!(answer["schema"], 1);
    let found = row(&answer, "processes", child.pid());
    assert_eq!(found["alignment_checks"], 1234);
    assert_eq!(found["alignment_checks_per_second"], 0.0);
    let snapshot = agent.snapshot();
    for field in ["start_ticks", "exe", "unit", "cgroup", "alive"] {
        let told = &row(&snapshot, "processes", child.pid())[field];
        assert_eq!(found[field], *told, "{field}");
    }
    let filtered = json(of(
        &agent,
        &[
            "--json",
            "--interval",
            "100ms",
            "--filter",
            "nobody-has-this",
        ],
    ));
    assert_eq!(filtered["processes"], Value::Array(vec![]));
}

fn one_table_has_the_counts_of_a_guest() {
    let agent = Agent::start(&[]);
    let event = Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count: 300,
        vcpus: 1,
    };
    let mut child = Child::spawn(&event, "vm-top-once");
    let results = child.run();
    let answer = json(of(&agent, &["--json", "--interval", "200ms"]));
    let found = row(&answer, "vms", child.pid());
    assert_eq!(found["name"], "vm-top-once");
    assert_eq!(found["alignment_checks"], 300);
    let shutdowns = &found["userspace_exits"]["shutdown"];
    assert_eq!(shutdowns["count"], results.get("shutdown"));
    assert_eq!(shutdowns["per_second"], 0.0);
}

/// Made between the two looks, and by nobody known before.
fn a_rate_is_what_was_made_in_a_time() {
    let agent = Agent::start(&[]);
    let mut child = Child::spawn(&checks(600), "ac-top-rate");
    let command = of(&agent, &["--json", "--interval", "4s"]);
    let looking = thread::spawn(move || json(command));
    thread::sleep(Duration::from_secs(2));
    child.run();
    let answer = looking.join().expect("top ends well");
    let found = row(&answer, "processes", child.pid());
    let rate = found["alignment_checks_per_second"]
        .as_f64()
        .expect("a rate");
    let seconds = answer["seconds"].as_f64().expect("a time");
    assert!(
        (rate * seconds - 600.0).abs() < 1e-6,
        "{rate} for {seconds} s"
    );
    assert!((3.5..30.0).contains(&seconds), "{seconds}");
}

fn a_person_finds_who_traps() {
    let agent = Agent::start(&[]);
    let mut child = Child::spawn(&checks(4321), "ac-top-find");
    child.run();
    let command = of(&agent, &["--interval", "200ms", "--color", "never"]);
    let mut terminal = PseudoTerminal::start(command, 80, 24);
    terminal.wait_for(&["splitlock-agent top", "Detection", "Hooks", "q quit"]);
    assert!(terminal.is_raw());
    terminal.keys("/ac-top-find\r");
    let screen = terminal.wait_for(&["filter: ac-top-find", "Processes 1"]);
    if !screen.contains("[Processes") {
        terminal.keys("\t");
    }
    terminal.wait_for(&["[Processes 1", "> ac-top-find"]);
    terminal.keys("\r");
    terminal.wait_for(&["Process ac-top-find  runs", "align checks", "4321"]);
    terminal.wait_for(&[&format!(" {}, started", child.pid())]);

    // The address is that of the agent's records.
    let snapshot = agent.snapshot();
    let told = row(&snapshot, "processes", child.pid());
    let start = told["start_ticks"].as_u64().expect("a number");
    let detail = agent.get(&format!("/api/v1/subjects/{}-{start}", child.pid()));
    let detail: Value = serde_json::from_str(&detail).expect("JSON");
    let site = &detail["sites"][0];
    let ip = site["ip"].as_str().expect("an address");
    let records = format!("{}x ", site["records"]);
    terminal.resize(120, 40);
    terminal.wait_for(&[ip, &records, "alignment_check", "Its newest events"]);
    terminal.keys("\u{1b}");
    // Both tables are there.
    terminal.wait_for(&["[Processes 1", " VMs 0"]);
    terminal.resize(39, 9);
    terminal.wait_for(&["Too small: 39x9"]);
    terminal.resize(40, 10);
    terminal.wait_for(&["> ac-top-find", "Detection"]);
    terminal.resize(80, 24);
    terminal.keys(" ");
    terminal.wait_for(&["PAUSED"]);
    // Ctrl-Z. Nobody could bring it back here, so the kernel lets it go on.
    terminal.keys("\u{1a}");
    terminal.keys("?");
    terminal.wait_for(&["Sort by"]);
    terminal.keys("q");
    assert!(terminal.end().success());
    terminal.assert_restored();
}

fn the_terminal_is_given_back_however_it_ends() {
    let agent = Agent::start(&[]);
    let start = || {
        let command = of(&agent, &["--interval", "200ms"]);
        let mut terminal = PseudoTerminal::start(command, 80, 24);
        terminal.wait_for(&["Detection"]);
        terminal.wait_for_screen(true);
        terminal
    };
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        let mut terminal = start();
        terminal.signal(signal);
        let status = terminal.end();
        assert!(status.success(), "{signal}: {status}");
        terminal.assert_restored();
    }
    let mut terminal = start();
    // Ctrl-C.
    terminal.keys("\u{3}");
    assert!(terminal.end().success());
    terminal.assert_restored();
}

/// What stands between `top` and an agent, which may be another one later.
struct Forwarder {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
}

impl Forwarder {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let target = Arc::new(Mutex::new(Some(target)));
        let now = Arc::clone(&target);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = *now.lock().expect("no writer panics");
                // Without an agent the connection is closed at once.
                if let Some(server) = target.and_then(|address| TcpStream::connect(address).ok()) {
                    forward(client, server);
                }
            }
        });
        Self { address, target }
    }

    fn lead_to(&self, target: Option<SocketAddr>) {
        *self.target.lock().expect("no reader panics") = target;
    }
}

fn forward(client: TcpStream, server: TcpStream) {
    let copies = [(&client, &server), (&server, &client)]
        .map(|(from, to)| (from.try_clone().expect("a free descriptor"), to.try_clone()));
    for (mut from, to) in copies {
        let mut to = to.expect("a free descriptor");
        thread::spawn(move || {
            // The end of one side is the end of the other.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

fn an_agent_may_go_and_come_back() {
    let agent = Agent::start(&["--limit.records-per-second", "1"]);
    let mut child = Child::spawn(&checks(50), "ac-top-back");
    child.run();
    let forwarder = Forwarder::start(agent.address());
    let url = format!("http://{}", forwarder.address);
    let command = top(&[
        "--url",
        &url,
        "--interval",
        "200ms",
        "--filter",
        "ac-top-back",
    ]);
    let mut terminal = PseudoTerminal::start(command, 120, 40);
    terminal.wait_for(&["ac-top-back", " 50 ", "every 200ms"]);
    forwarder.lead_to(None);
    drop(agent);
    // The last picture stays.
    terminal.wait_for(&["NO ANSWER", "last picture", "ac-top-back", " 50 "]);
    let later = Agent::start(&["--limit.records-per-second", "1"]);
    let mut other = Child::spawn(&checks(3), "ac-top-back2");
    other.run();
    forwarder.lead_to(Some(later.address()));
    let screen = terminal.wait_for(&["ac-top-back2", "every 200ms"]);
    // The later agent has seen nothing of the first.
    assert!(!screen.contains(" 50 "), "{screen}");
    terminal.keys("q");
    assert!(terminal.end().success());
}

/// Runs it where no agent answers, whatever else runs on this machine: in a network of its own, whose
/// loopback is down.
fn alone(command: &mut Command) {
    // SAFETY: between fork and exec only this system call is made.
    unsafe {
        command.pre_exec(|| match libc::unshare(libc::CLONE_NEWNET) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

fn without_an_agent_it_has_probes_of_its_own() {
    let mut child = Child::spawn(&checks(777), "ac-top-own");
    let mut command = top(&["--interval", "200ms", "--filter", "ac-top-own"]);
    alone(&mut command);
    let mut terminal = PseudoTerminal::start(command, 120, 40);
    terminal.wait_for(&["own probes", "Processes 0"]);
    child.run();
    terminal.wait_for(&["ac-top-own", "777"]);
    terminal.keys("q");
    assert!(terminal.end().success());
    terminal.assert_restored();
}

fn without_an_agent_and_rights_it_says_so() {
    let mut command = top(&["--once"]);
    alone(&mut command);
    // SAFETY: between fork and exec only this system call is made.
    unsafe {
        command.pre_exec(|| {
            // What the program has is what is left; the last capabilities do not exist.
            for capability in 0..64 {
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
    let output = output(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in [
        "no agent answers at http://127.0.0.1:9839",
        "missing CAP_BPF",
        "--url",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

fn what_is_no_agent_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    for (args, parts) in [
        (vec!["--once", "--url", "https://"], vec!["--url https://"]),
        (vec!["--once", "--url", "x"], vec!["begins with http://"]),
        (vec!["--interval", "1ms"], vec!["at least 100ms"]),
        (vec!["--once", "--json"], vec!["cannot be used with"]),
    ] {
        let output = output(top(&args));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{args:?}: {error}"
        );
    }
    let url = format!("http://{address}");
    // A pipe is no terminal, and nobody listens.
    for (args, part) in [
        (["--url", &url, "--once"], "refused"),
        (["--url", &url, "--interval=1s"], "no terminal"),
    ] {
        let output = output(top(&args));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(part), "{error}");
    }
}
