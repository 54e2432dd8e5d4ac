//! A server in an agent's place: it serves the agent's own page, and figures of a test's choice.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use splitlock_agent::export::page::Page;

/// Answers a path below `/api/v1`, or has no such thing.
type Answer = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Serves until the test program ends, at the address that it gives.
pub fn serve(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    let answer: Arc<Answer> = Arc::new(answer);
    let page = Page::new("/metrics");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (answer, page) = (Arc::clone(&answer), page.clone());
            // A browser that goes away meanwhile is no failure.
            thread::spawn(move || serve_one(stream, &page, &*answer).ok());
        }
    });
    address
}

fn serve_one(mut stream: TcpStream, page: &Page, answer: &Answer) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let html = || String::from_utf8_lossy(&page.html).into_owned();
    let (kind, body) = match path {
        "/" => ("text/html; charset=utf-8", Some(html())),
        path => (
            "application/json",
            path.strip_prefix("/api/v1").and_then(answer),
        ),
    };
    let (status, body) = match body {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Content-Security-Policy: {}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
        page.policy,
    )
}
