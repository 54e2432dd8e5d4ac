//! Clients by the thousand, those that vanish, and scrapers that hurry.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::super::{
    Test,
    agent::Agent,
    crowds::anonymous_memory,
    events::{Child, Event},
    processes::checks,
    requirements::{
        Requirement::{AlignmentChecks, Root},
        missed,
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults::a_thousand_slow_clients_shut_nobody_out",
        needs: &[Root, AlignmentChecks],
        run: a_thousand_slow_clients_shut_nobody_out,
    },
    Test {
        name: "faults::clients_that_vanish_are_given_up",
        needs: &[Root],
        run: clients_that_vanish_are_given_up,
    },
    Test {
        name: "faults::a_storm_of_scrapes_costs_no_count",
        needs: &[Root, AlignmentChecks],
        run: a_storm_of_scrapes_costs_no_count,
    },
];

/// What a scrape may take beside so many others, on a machine that is busy with other tests; alone
/// it takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

fn checks_of(count: u64) -> Event {
    Event::AlignmentCheck { count, threads: 1 }
}

#[track_caller]
fn assert_counted(agent: &Agent, comm: &str, child: &Child, made: u64) {
    let metrics = agent.metrics();
    let counted = metrics.count(&checks(comm, child.pid()));
    let skipped = missed(&metrics, "signal_generate");
    assert!(
        counted <= made && counted + skipped >= made,
        "{counted} of {made}"
    );
}

fn a_thousand_slow_clients_shut_nobody_out() {
    const CLIENTS: usize = 1000;
    const MIB: u64 = 1 << 20;
    let agent = Agent::start(&[]);
    agent.metrics();
    let before = anonymous_memory(agent.pid());
    let is_over = AtomicBool::new(false);
    let connected = AtomicU64::new(0);
    let address = agent.address();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| trickle(address, CLIENTS / 4, &connected, &is_over));
        }
        while connected.load(Ordering::Relaxed) < CLIENTS as u64 {
            thread::sleep(Duration::from_millis(10));
        }
        let mut child = Child::spawn(&checks_of(100), "slow-clients");
        child.run();
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            let start = Instant::now();
            agent.metrics();
            slowest = slowest.max(start.elapsed());
        }
        assert_counted(&agent, "slow-clients", &child, 100);
        let taken = anonymous_memory(agent.pid()).saturating_sub(before);
        is_over.store(true, Ordering::Relaxed);
        eprintln!(
            "the slowest scrape took {slowest:?}; {} KiB more memory",
            taken / 1024
        );
        assert!(slowest < PATIENCE, "{slowest:?}");
        assert!(taken < 16 * MIB, "{taken}");
    });
}

/// Clients that send a byte of their request every now and then, and connect again when they were
/// given up.
fn trickle(address: SocketAddr, count: usize, connected: &AtomicU64, is_over: &AtomicBool) {
    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    let connect = || {
        let stream = TcpStream::connect(address).expect("the kernel takes connections");
        stream.set_nonblocking(true).expect("a socket");
        stream
    };
    let mut clients: Vec<(TcpStream, usize)> = vec![];
    for _ in 0..count {
        clients.push((connect(), 0));
        connected.fetch_add(1, Ordering::Relaxed);
    }
    while !is_over.load(Ordering::Relaxed) {
        for (stream, sent) in &mut clients {
            let byte = REQUEST.get(*sent).copied().unwrap_or(b'x');
            *sent += 1;
            if stream.write_all(&[byte]).is_err() {
                (*stream, *sent) = (connect(), 0);
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Takes the client's host off the net: what comes for it is lost, and nobody says that it is gone.
fn vanish(client: &TcpStream) {
    // Classic BPF: a packet's first 0 bytes are taken, that is none of it (socket(7), SO_ATTACH_FILTER).
    let mut take_nothing = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: take_nothing.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, whose length is right.
    let status = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}

/// As many as there are places: half of them have not finished their request, half of them do not
/// acknowledge the answer.
fn clients_that_vanish_are_given_up() {
    const CLIENTS: usize = 64;
    let agent = Agent::start(&[]);
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|index| {
            let mut stream = TcpStream::connect(agent.address()).expect("the agent listens");
            let request: &[u8] = if index % 2 == 0 {
                b"GET /metrics HTTP/1.1\r\nHost: "
            } else {
                b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
            };
            vanish(&stream);
            stream.write_all(request).expect("the kernel takes it");
            stream
        })
        .collect();
    let start = Instant::now();
    while connections(&agent) > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} are still there",
            connections(&agent)
        );
        thread::sleep(Duration::from_millis(200));
    }
    eprintln!("given up after {:?}", start.elapsed());
    agent.metrics();
    drop(clients);
}

/// TCP connections that are the agent's, by its descriptors.
fn connections(agent: &Agent) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let port = format!(":{:04X} ", agent.address().port());
    table
        .lines()
        .filter(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            // The local address; not listening (0A), and still some descriptor's.
            words.len() > 9
                && format!("{} ", words[1]).ends_with(&port)
                && words[3] != "0A"
                && words[9] != "0"
        })
        .count()
}

fn a_storm_of_scrapes_costs_no_count() {
    const SCRAPERS: usize = 32;
    const TIME: Duration = Duration::from_secs(5);
    const TRAPS: u64 = 20_000;
    let agent = Agent::start(&[]);
    let address = agent.address();
    let is_over = AtomicBool::new(false);
    let (answers, refused, bytes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut child = Child::spawn(&checks_of(TRAPS), "scrape-storm");
    thread::scope(|scope| {
        for _ in 0..SCRAPERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(address) else {
                        continue;
                    };
                    let asked = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
                    let mut answer = vec![];
                    if asked.is_ok() && stream.read_to_end(&mut answer).is_ok() {
                        let status = String::from_utf8_lossy(&answer[..answer.len().min(12)]);
                        match status.as_ref() {
                            "HTTP/1.0 200" => answers.fetch_add(1, Ordering::Relaxed),
                            // One too many of a client's is told to come again, or makes room for it.
                            "HTTP/1.0 503" | "" => refused.fetch_add(1, Ordering::Relaxed),
                            other => panic!("{other}"),
                        };
                        bytes.fetch_add(answer.len() as u64, Ordering::Relaxed);
                    }
                }
            });
        }
        let start = Instant::now();
        child.run();
        thread::sleep(TIME.saturating_sub(start.elapsed()));
        is_over.store(true, Ordering::Relaxed);
    });
    eprintln!(
        "{} answers, {} refused, {} KiB",
        answers.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed),
        bytes.load(Ordering::Relaxed) / 1024
    );
    assert!(answers.load(Ordering::Relaxed) > SCRAPERS as u64);
    assert_counted(&agent, "scrape-storm", &child, TRAPS);
}
