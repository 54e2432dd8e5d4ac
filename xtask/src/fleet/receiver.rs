//! The webhook that Alertmanager sends its notifications to.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc::{Receiver as Channel, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::notification::Notification;

/// No notification is longer, and no head.
const LONGEST: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// A receiver of notifications, as long as xtask runs.
pub struct Receiver {
    /// Its port on the loopback.
    pub port: u16,
    /// What arrives, or what was wrong with it.
    pub notifications: Channel<Result<Notification>>,
}

impl Receiver {
    /// Starts to listen on a port of the kernel's choice.
    pub fn start() -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the receiver")?;
        let port = listener.local_addr().context("the receiver's port")?.port();
        let (sender, notifications) = channel();
        thread::spawn(move || serve(&listener, &sender));
        Ok(Self {
            port,
            notifications,
        })
    }
}

/// One connection after the other: Alertmanager sends few.
fn serve(listener: &TcpListener, sender: &Sender<Result<Notification>>) {
    for stream in listener.incoming().flatten() {
        let (answer, received) = match receive(&stream) {
            Ok(notification) => ("200 OK", Ok(notification)),
            Err(error) => ("400 Bad Request", Err(error)),
        };
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        // Alertmanager sends again what it has no answer to.
        let _ = (&stream).write_all(answer.as_bytes());
        if sender.send(received).is_err() {
            return;
        }
    }
}

fn receive(stream: &TcpStream) -> Result<Notification> {
    stream
        .set_read_timeout(Some(PATIENCE))
        .context("a read timeout")?;
    let (path, body) = request(stream)?;
    Notification::parse(&path, &body)
}

/// The path and the body of a request.
fn request(stream: impl Read) -> Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream).take(LONGEST);
    let mut line = String::new();
    reader.read_line(&mut line).context("no request")?;
    let path = match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["POST", path, _version] => path.to_owned(),
        _ => bail!("not a notification: {line:?}"),
    };
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line).context("no end of the head")?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().context("its length")?);
        }
    }
    let length: u64 = length.context("a request without a length")?;
    ensure!(length < LONGEST, "a request of {length} bytes");
    let mut body = vec![];
    reader
        .take(length)
        .read_to_end(&mut body)
        .context("reading the body")?;
    ensure!(body.len() as u64 == length, "the body is cut short");
    Ok((path, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_path_and_a_body() {
        let bytes = "POST /page HTTP/1.1\r\nHost: a:1\r\ncontent-length: 2\r\n\r\n{}rest";
        let (path, body) = request(bytes.as_bytes()).unwrap();
        assert_eq!((path.as_str(), body.as_slice()), ("/page", &b"{}"[..]));
    }

    #[test]
    fn what_is_no_whole_notification_is_refused() {
        for bytes in [
            "",
            "GET / HTTP/1.1\r\n\r\n",
            "POST /page HTTP/1.1\r\n\r\n{}",
            "POST /page HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}",
            "POST /page HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{}",
            "POST /page HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}",
        ] {
            assert!(request(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_posted_arrives() {
        let receiver = Receiver::start().unwrap();
        let url = format!("http://127.0.0.1:{}/ticket", receiver.port);
        let body =
            r#"{"alerts":[{"status":"firing","labels":{"alertname":"A"},"annotations":{}}]}"#;
        ureq::post(&url).send(body).unwrap();
        let notification = receiver.notifications.recv().unwrap().unwrap();
        assert_eq!(notification.receiver, "ticket");
        assert_eq!(notification.alerts[0].name(), "A");
        assert!(ureq::post(&url).send("no JSON").is_err());
        assert!(receiver.notifications.recv().unwrap().is_err());
    }
}
