//! Requests that no client would send: mutations of good ones, straight into the socket.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{Test, agent::Agent, crowds::anonymous_memory, requirements::Requirement::Root};

pub const TESTS: &[Test] = &[
    Test {
        name: "http_fuzz::mutated_requests_are_answered_or_refused",
        needs: &[Root],
        run: mutated_requests_are_answered_or_refused,
    },
    Test {
        name: "http_fuzz::so_are_random_ones",
        needs: &[Root],
        run: so_are_random_ones,
    },
];

/// For an answer, or an end of the connection. The agent gives a client 5 s for a request.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes that the agent may grow by: connections' buffers stay with the allocator.
const GROWTH: u64 = 16 << 20;

/// Good requests, and some that are none.
const REQUESTS: [&str; 10] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0.5, *;q=0\r\nConnection: close\r\n\r\n",
    "HEAD /api/v1/snapshot HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\nIf-None-Match: \"x\"\r\n\r\n",
    "GET /api/v1/subjects/4711-123456 HTTP/1.0\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /readyz HTTP/1.1\r\nHost: b\r\n\r\n",
    "POST /api/v1/snapshot HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nUpgrade: h2c\r\n\r\n",
    "GET http://a/metrics?x=%00%ff#y HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// What is put in somewhere.
const PIECES: [&[u8]; 16] = [
    b"\r\n",
    b"\n",
    b"\0",
    b" ",
    b":",
    b"%2e%2e/",
    b"../",
    b"\xff\xfe",
    b"HTTP/9.9",
    b"Content-Length: 18446744073709551616\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: -1\r\n",
    b"Host: \r\n",
    b"GET /healthz HTTP/1.1\r\n",
    b"Accept-Encoding: gzip\r\n",
    b"%u0000",
];

/// xorshift64*: the same from the same seed, on any machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn request(&mut self) -> Vec<u8> {
        let mut bytes = REQUESTS[self.below(REQUESTS.len())].as_bytes().to_vec();
        for _ in 0..self.below(5) {
            let at = self.below(bytes.len());
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => bytes[at..]
                    .iter_mut()
                    .take(1)
                    .for_each(|byte| *byte ^= 1 << (at % 8)),
                2 => {
                    let piece = PIECES[self.below(PIECES.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                3 => {
                    let end = (at + self.below(20)).min(bytes.len());
                    bytes.drain(at..end);
                }
                4 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let part: Vec<u8> = bytes[at..end].to_vec();
                    let times = 1 + self.below(200);
                    bytes.splice(at..at, part.repeat(times));
                }
                5 => {
                    let noise: Vec<u8> = (0..self.below(64)).map(|_| self.next() as u8).collect();
                    bytes.splice(at..at, noise);
                }
                _ => {
                    let header = format!("X-{at}: {}\r\n", "y".repeat(self.below(30_000)));
                    let end = bytes
                        .iter()
                        .position(|byte| *byte == b'\n')
                        .map_or(at, |end| end + 1);
                    bytes.splice(end..end, header.into_bytes());
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    }
}

fn mutated_requests_are_answered_or_refused() {
    fuzz(0x5eed_0000_0000_0001, 2000);
}

fn so_are_random_ones() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    fuzz(now.as_nanos() as u64 | 1, 1000);
}

fn fuzz(seed: u64, requests: u32) {
    println!("seed {seed:#x}");
    let agent = Agent::start(&[]);
    let mut random = Random(seed);
    // What connections cost once they cost for the first time is in this.
    for _ in 0..100 {
        send(&agent, &random.request());
    }
    let before = anonymous_memory(agent.pid());
    let mut kinds = [0_u32; 6];
    for number in 0..requests {
        let request = random.request();
        let answer = send(&agent, &request);
        let told = || {
            format!(
                "seed {seed:#x}, request {number}: {:?}",
                String::from_utf8_lossy(&request)
            )
        };
        let Some(head) = answer.get(..12) else {
            assert!(answer.is_empty(), "{}: {answer:?}", told());
            kinds[0] += 1;
            continue;
        };
        let head = String::from_utf8_lossy(head).into_owned();
        let status: u32 = head
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| head.strip_prefix("HTTP/1.0 "))
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("{}: {head:?}", told()));
        assert!((100..500).contains(&status), "{}: {head}", told());
        kinds[status as usize / 100] += 1;
        // Only who reads gets something to read.
        let method = request
            .split(|byte| *byte == b' ')
            .next()
            .unwrap_or_default();
        if status == 200 {
            let text = String::from_utf8_lossy(&request);
            assert!(
                text.contains("GET") || text.contains("HEAD"),
                "{}: {head} to {method:?}",
                told()
            );
        }
    }
    println!(
        "{requests} requests: {} without an answer, 2xx {}, 3xx {}, 4xx {}",
        kinds[0], kinds[2], kinds[3], kinds[4]
    );
    assert!(
        kinds[2] > requests / 20 && kinds[4] > requests / 20,
        "{kinds:?}"
    );
    assert_eq!(agent.get("/healthz"), "ok\n");
    let grown = anonymous_memory(agent.pid()).saturating_sub(before);
    assert!(grown < GROWTH, "seed {seed:#x}: {grown} bytes more");
    let panics: Vec<_> = agent
        .log()
        .into_iter()
        .filter(|line| line["level"] == "ERROR")
        .collect();
    assert!(panics.is_empty(), "seed {seed:#x}: {panics:?}");
}

/// Sends bytes, and gives what came back until the agent had no more to say.
fn send(agent: &Agent, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(agent.address()).expect("the agent listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time limit");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("a time limit");
    // It may close the connection before it has read all.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = vec![];
    let start = Instant::now();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!(
            "{error} after {:?} and {} bytes: {:?}",
            start.elapsed(),
            answer.len(),
            String::from_utf8_lossy(request)
        ),
    }
    answer
}
