//! Other sockets than one of TCP that the agent opens: of Unix, several at once, and handed over by
//! the service manager.

use std::{
    fs,
    net::TcpListener,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Test,
    agent::{Agent, binary},
    requirements::Requirement::{Curl, Root},
    web_setup::{Folder, PASSWORD, USER, curl, exists, users},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "web_sockets::a_unix_socket_serves_its_group_and_goes_in_the_end",
        needs: &[Root, Curl],
        run: a_unix_socket_serves_its_group_and_goes_in_the_end,
    },
    Test {
        name: "web_sockets::one_that_was_left_is_replaced_and_one_in_use_is_not",
        needs: &[Root, Curl],
        run: one_that_was_left_is_replaced_and_one_in_use_is_not,
    },
    Test {
        name: "web_sockets::those_that_are_handed_over_are_served",
        needs: &[Root, Curl],
        run: those_that_are_handed_over_are_served,
    },
    Test {
        name: "web_sockets::without_a_socket_that_is_handed_over_it_does_not_start",
        needs: &[Root],
        run: without_a_socket_that_is_handed_over_it_does_not_start,
    },
];

fn over(socket: &str, path: &str, args: &[&str]) -> super::web_setup::Got {
    let mut all = vec!["--unix-socket", socket];
    all.extend(args);
    curl(&format!("http://localhost{path}"), &all)
}

fn a_unix_socket_serves_its_group_and_goes_in_the_end() {
    let folder = Folder::new();
    let socket = folder.path("a.sock");
    let file = folder.write("web.yml", &users(4));
    let address = format!("unix:{socket}");
    let agent = Agent::start(&["--web.listen-address", &address, "--web.config.file", &file]);
    assert_eq!(
        fs::metadata(&socket).expect("a socket").mode() & 0o7777,
        0o660
    );
    assert_eq!(over(&socket, "/healthz", &[]).status, 200);
    // Users are users here as well.
    assert_eq!(over(&socket, "/metrics", &[]).status, 401);
    let user = format!("{USER}:{PASSWORD}");
    assert_eq!(over(&socket, "/metrics", &["--user", &user]).status, 200);
    // And on the other address at the same time.
    let tcp = format!("http://{}/metrics", agent.address());
    assert_eq!(curl(&tcp, &["--user", &user]).status, 200);
    // Others may not even connect.
    fs::set_permissions(folder.path("."), fs::Permissions::from_mode(0o755)).expect("a folder");
    let mut nobody = Command::new("curl");
    nobody
        .args([
            "--silent",
            "--unix-socket",
            &socket,
            "http://localhost/healthz",
        ])
        .uid(65534)
        .gid(65534);
    assert!(!nobody.output().expect("curl runs").status.success());
    let (status, _) = agent.end(libc::SIGTERM);
    assert!(status.success());
    // Who has given up all rights removes nothing; nobody listens, and the next agent replaces it.
    assert!(UnixStream::connect(&socket).is_err());
    let agent = Agent::start(&["--web.listen-address", &address, "--privileges", "keep"]);
    assert_eq!(over(&socket, "/healthz", &[]).status, 200);
    agent.end(libc::SIGTERM);
    assert!(!exists(&socket), "the socket's file stays");
}

fn one_that_was_left_is_replaced_and_one_in_use_is_not() {
    let folder = Folder::new();
    let socket = folder.path("a.sock");
    let address = format!("unix:{socket}");
    let args = ["--web.listen-address", address.as_str()];
    let first = Agent::start(&args);
    let second = end_of(Command::new(binary()).args(["run", "--web.listen-address", &address]));
    let text = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains(&address), "{text}");
    assert_eq!(
        over(&socket, "/healthz", &[]).status,
        200,
        "the first goes on"
    );
    // Killed: its socket stays.
    first.end(libc::SIGKILL);
    assert!(exists(&socket));
    assert!(UnixStream::connect(&socket).is_err());
    let _third = Agent::start(&args);
    assert_eq!(over(&socket, "/healthz", &[]).status, 200);
}

/// What an agent says that is to end by itself; where it does not, it is killed.
fn end_of(command: &mut Command) -> Output {
    let mut agent = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent's binary starts");
    let start = Instant::now();
    while agent.try_wait().expect("it is our child").is_none() {
        if start.elapsed() > Duration::from_secs(30) {
            agent.kill().expect("it is our child");
        }
        thread::sleep(Duration::from_millis(20));
    }
    agent.wait_with_output().expect("it has ended")
}

/// An agent that was started as the service manager does it.
struct Activated(Child);

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn those_that_are_handed_over_are_served() {
    let folder = Folder::new();
    let socket = folder.path("a.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let unix = UnixListener::bind(&socket).expect("a socket");
    let address = tcp.local_addr().expect("an address");
    let handed = [tcp.as_raw_fd(), unix.as_raw_fd()];
    let names = handed.map(|fd| {
        let link = fs::read_link(format!("/proc/self/fd/{fd}")).expect("an open socket");
        link.display().to_string()
    });
    // The shell's pid stays the agent's.
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            r#"exec env LISTEN_PID=$$ LISTEN_FDS=2 "$0" run --web.systemd-socket"#,
        ])
        .arg(binary())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec this only calls dup2 and fcntl, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            // Away from the two numbers first, so that neither overwrites the other.
            let high = handed.map(|fd| libc::fcntl(fd, libc::F_DUPFD, 100));
            for (fd, number) in high.into_iter().zip(3..) {
                if fd < 0 || libc::dup2(fd, number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                libc::close(fd);
            }
            Ok(())
        });
    }
    let agent = Activated(command.spawn().expect("a shell"));
    drop((tcp, unix));
    let start = Instant::now();
    let health = format!("http://{address}/healthz");
    while curl(&health, &["--max-time", "2"]).status != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it does not serve"
        );
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(over(&socket, "/metrics", &[]).status, 200);
    // Nothing of its own: the default address is for those who name nothing.
    let pid = agent.0.id();
    let sockets = listening(pid);
    assert_eq!(sockets, 1, "TCP sockets that it listens on");
    // Its helpers, which keep rights that it has given up, have none of them.
    let helpers = children(pid);
    assert!(!helpers.is_empty(), "it has no keeper");
    for helper in helpers {
        let held = held(helper);
        assert!(!names.iter().any(|name| held.contains(name)), "{held:?}");
    }
    drop(agent);
    // It is the manager's, which may start the agent again.
    assert!(exists(&socket));
}

/// What a process has open.
fn held(pid: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .collect()
}

fn children(pid: u32) -> Vec<u32> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .expect("its threads")
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

/// How many TCP sockets a process listens on.
fn listening(pid: u32) -> usize {
    let held = held(pid);
    let is_held = |inode: &str| held.contains(&format!("socket:[{inode}]"));
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|family| fs::read_to_string(format!("/proc/{pid}/net/{family}")).ok())
        .map(|table| {
            let lines = table.lines().map(str::split_whitespace);
            lines
                .map(Iterator::collect::<Vec<_>>)
                // 0A is LISTEN.
                .filter(|words| {
                    words.get(3) == Some(&"0A") && words.get(9).is_some_and(|i| is_held(i))
                })
                .count()
        })
        .sum()
}

fn without_a_socket_that_is_handed_over_it_does_not_start() {
    for (pid, count) in [("", ""), ("1", "1")] {
        let mut command = Command::new(binary());
        command
            .args(["run", "--web.systemd-socket"])
            .env("LISTEN_PID", pid)
            .env("LISTEN_FDS", count);
        let output = end_of(&mut command);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("--web.systemd-socket"), "{text}");
    }
}
