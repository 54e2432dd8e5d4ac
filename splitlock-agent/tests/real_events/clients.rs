//! The agent's HTTP clients: what they are given, and what those that do not read can do to it.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use super::{
    Test,
    agent::Agent,
    crowds::{self, anonymous_memory},
    events::crowd::Each,
    requirements::{
        self,
        Requirement::{AlignmentChecks, Root},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "clients::those_that_take_gzip_are_given_it",
        needs: &[Root],
        run: those_that_take_gzip_are_given_it,
    },
    Test {
        name: "clients::one_connection_serves_many_requests",
        needs: &[Root],
        run: one_connection_serves_many_requests,
    },
    Test {
        name: "clients::silent_ones_do_not_hold_it_up",
        needs: &[Root],
        run: silent_ones_do_not_hold_it_up,
    },
    Test {
        name: "clients::those_that_do_not_read_shut_nobody_out",
        needs: &[Root],
        run: those_that_do_not_read_shut_nobody_out,
    },
    Test {
        name: "clients::those_that_do_not_read_cost_little_memory",
        needs: &[Root, AlignmentChecks],
        run: those_that_do_not_read_cost_little_memory,
    },
    Test {
        name: "clients::one_that_reads_a_byte_a_second_is_given_up",
        needs: &[Root],
        run: one_that_reads_a_byte_a_second_is_given_up,
    },
];

fn connect(agent: &Agent) -> TcpStream {
    TcpStream::connect(agent.address()).expect("the agent listens")
}

/// Asks for the metrics as a client that takes `encodings`; gives the head and the body.
fn ask(agent: &Agent, encodings: &str) -> (String, Vec<u8>) {
    let mut stream = connect(agent);
    let request =
        format!("GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept-Encoding: {encodings}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("the agent reads");
    let mut answer = vec![];
    stream.read_to_end(&mut answer).expect("the agent closes");
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .expect("a head");
    let body = answer.split_off(end + 4);
    (String::from_utf8_lossy(&answer).to_lowercase(), body)
}

fn those_that_take_gzip_are_given_it() {
    let agent = Agent::start(&[]);
    // As Prometheus asks.
    let (head, packed) = ask(&agent, "gzip");
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    assert!(head.contains("\r\nvary: accept-encoding\r\n"), "{head}");
    for encodings in ["identity", "gzip;q=0", "br"] {
        let (head, plain) = ask(&agent, encodings);
        assert!(!head.contains("content-encoding"), "{encodings}: {head}");
        assert!(plain.starts_with(b"# HELP splitlock_"), "{encodings}");
        assert!(packed.len() * 3 < plain.len(), "{}", packed.len());
    }
    // The tests' client takes it as well, and unpacks it.
    assert_eq!(agent.metrics().family("splitlock_build_info").len(), 1);
}

/// Half a request, and then nothing; bytes that are no request.
fn silent_ones_do_not_hold_it_up() {
    let agent = Agent::start(&[]);
    // More than the server holds at a time.
    let mut silent: Vec<TcpStream> = (0..150).map(|_| connect(&agent)).collect();
    for stream in &mut silent {
        stream
            .write_all(b"GET /metrics HT")
            .expect("the agent reads");
    }
    let start = Instant::now();
    agent.metrics();
    assert!(start.elapsed() < Duration::from_secs(10));
    drop(silent);
    let mut odd = connect(&agent);
    odd.write_all(b"\x16\x03\x01\0\xff\r\n\r\n")
        .expect("the agent reads");
    let mut answer = vec![];
    odd.read_to_end(&mut answer).expect("the agent closes");
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
}

/// Reads one answer of a connection that stays open; gives its status line and its body.
fn read_answer(stream: &mut BufReader<TcpStream>, has_body: bool) -> (String, Vec<u8>) {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).expect("the agent writes");
        line.trim_end().to_ascii_lowercase()
    };
    let status = line();
    let mut length = None;
    loop {
        let header = line();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = Some(value.trim().parse().expect("a length"));
        }
    }
    let mut body = vec![
        0;
        if has_body {
            length.expect("a length")
        } else {
            0
        }
    ];
    stream.read_exact(&mut body).expect("a whole answer");
    (status, body)
}

fn one_connection_serves_many_requests() {
    let agent = Agent::start(&[]);
    let stream = connect(&agent);
    let mut writer = stream.try_clone().expect("a descriptor");
    let mut reader = BufReader::new(stream);
    let mut send = |text: &str| writer.write_all(text.as_bytes()).expect("the agent reads");
    // One after the other, as Prometheus does.
    for _ in 0..2 {
        send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (status, body) = read_answer(&mut reader, true);
        assert_eq!(status, "http/1.1 200 ok");
        assert!(body.starts_with(b"# HELP splitlock_"));
        thread::sleep(Duration::from_secs(1));
    }
    // The head alone, and more requests before that was read.
    send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    send("GET /api/v1/snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (status, _) = read_answer(&mut reader, false);
    assert_eq!(status, "http/1.1 200 ok");
    let (_, body) = read_answer(&mut reader, true);
    assert_eq!(body, b"ok\n");
    let (_, body) = read_answer(&mut reader, true);
    serde_json::from_slice::<serde_json::Value>(&body).expect("the snapshot is JSON");
}

/// Twice as many as the server holds at a time.
const CROWD: usize = 128;

/// A client that sends requests for as long as the agent reads, and reads nothing.
fn pipeline(agent: &Agent, path: &str) -> TcpStream {
    let mut stream = connect(agent);
    let requests = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(3000);
    stream.set_nonblocking(true).expect("a socket");
    let mut rest = requests.as_bytes();
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(written) => rest = &rest[written..],
            // The agent reads no further, or has left already.
            Err(error) => {
                let expected = [
                    ErrorKind::WouldBlock,
                    ErrorKind::ConnectionReset,
                    ErrorKind::BrokenPipe,
                ];
                assert!(expected.contains(&error.kind()), "{error}");
                break;
            }
        }
    }
    stream
}

/// Asks on a connection of its own, and waits for the status line.
fn is_answered(agent: &Agent, path: &str) -> Duration {
    let start = Instant::now();
    let mut stream = connect(agent);
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a socket");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("the agent reads");
    let mut answer = vec![];
    stream.read_to_end(&mut answer).expect("the agent closes");
    let status = String::from_utf8_lossy(&answer[..answer.len().min(15)]);
    assert_eq!(status, "HTTP/1.0 200 OK", "{path}");
    start.elapsed()
}

fn those_that_do_not_read_shut_nobody_out() {
    let agent = Agent::start(&[]);
    let unread: Vec<_> = (0..CROWD).map(|_| pipeline(&agent, "/metrics")).collect();
    for path in ["/healthz", "/metrics", "/healthz"] {
        let time = is_answered(&agent, path);
        eprintln!("{path} after {time:?}");
        assert!(time < Duration::from_secs(15), "{path} after {time:?}");
    }
    drop(unread);
}

fn those_that_do_not_read_cost_little_memory() {
    const MIB: u64 = 1 << 20;
    /// Of the agent's budget for answers.
    const BUDGET: u64 = 16 * MIB;
    /// For subjects of other tests that run meanwhile.
    const OTHERS: u64 = 12 * MIB;
    let processes = if requirements::in_rig() { 2500 } else { 6000 };
    let agent = Agent::start(&["--limit.processes", &processes.to_string()]);
    crowds::crowd(Each::AlignmentCheck, "unread", processes);
    let path = "/api/v1/snapshot";
    let size = agent.get(path).len() as u64;
    // What they would take if each had its own.
    let wanted = size * CROWD as u64;
    assert!(wanted > 5 * BUDGET, "{size} bytes are too few to tell");
    let before = anonymous_memory(agent.pid());
    // Not all at once, so that each could have a snapshot of its own.
    let mut most = before;
    let mut unread = vec![];
    for _ in 0..CROWD {
        unread.push(pipeline(&agent, path));
        thread::sleep(Duration::from_millis(50));
        most = most.max(anonymous_memory(agent.pid()));
    }
    for path in ["/healthz", "/metrics"] {
        let time = is_answered(&agent, path);
        assert!(time < Duration::from_secs(15), "{path} after {time:?}");
        most = most.max(anonymous_memory(agent.pid()));
    }
    let taken = most - before;
    eprintln!(
        "{size} bytes an answer: {} KiB more for {CROWD} clients, {} KiB if each had its own",
        taken / 1024,
        wanted / 1024
    );
    // Besides: a snapshot and its table, the answer that is being made and its text.
    assert!(taken < BUDGET + 5 * size + OTHERS, "{taken}");
    drop(unread);
    let start = Instant::now();
    while anonymous_memory(agent.pid()) > before + 2 * size + OTHERS {
        assert!(start.elapsed() < Duration::from_secs(30), "it stays");
        thread::sleep(Duration::from_millis(100));
    }
}

fn one_that_reads_a_byte_a_second_is_given_up() {
    let agent = Agent::start(&[]);
    let mut stream = pipeline(&agent, "/metrics");
    stream.set_nonblocking(false).expect("a socket");
    let start = Instant::now();
    // What was received before can still be read; the socket tells that the agent is gone.
    while stream.take_error().expect("a socket").is_none() {
        let time = start.elapsed();
        assert!(
            time < Duration::from_secs(40),
            "still served after {time:?}"
        );
        stream.read_exact(&mut [0]).expect("a byte of an answer");
        thread::sleep(Duration::from_secs(1));
    }
    let time = start.elapsed();
    assert!(time > Duration::from_secs(5), "given up after {time:?}");
    is_answered(&agent, "/metrics");
}
