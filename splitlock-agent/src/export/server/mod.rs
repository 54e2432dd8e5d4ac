//! The HTTP server: metrics, health, the JSON snapshot, the page.
//!
//! What a client can take from the agent is bounded: places, time, and memory.

mod answers;
mod clients;
mod document;
mod gzip;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, socket_with,
    sockopt::{
        set_socket_recv_buffer_size, set_socket_reuseaddr, set_socket_send_buffer_size,
        set_tcp_user_timeout,
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};
use tracing::warn;

use self::{
    answers::{Answers, Form, What},
    clients::Clients,
    document::Document,
};
use super::exposition;
use crate::agent::Request;

/// Connections at a time. A further one takes the place of one that has stalled, or waits.
const CONNECTIONS: usize = 64;
/// Those that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// What the kernel keeps for a client that does not read; it doubles this for its own needs.
const SEND_BUFFER: usize = 64 * 1024;
/// What it keeps of requests that the agent does not read yet, doubled likewise.
const RECEIVE_BUFFER: usize = 16 * 1024;
/// Before looking again for a place or memory, and before accepting again where that failed, as
/// when no file descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);
/// When a client that was refused should try again, in seconds.
const RETRY_AFTER: &str = "5";

type Context = State<Arc<Answers>>;

/// A bound server.
pub struct Server {
    listener: std::net::TcpListener,
    clients: Clients,
    router: Router,
}

impl Server {
    /// Binds the address; needs no runtime.
    ///
    /// # Errors
    /// The address is in use, not this machine's, or not for this user.
    pub fn bind(
        address: SocketAddr,
        telemetry_path: &str,
        requests: mpsc::Sender<Request>,
    ) -> io::Result<Self> {
        let clients = Clients::default();
        let answers = Answers::new(requests, clients.clone());
        let page = Document::new(telemetry_path)?;
        let router = Router::new()
            .route(
                "/",
                get(move |asked: HeaderMap| async move { page.show(&asked) }),
            )
            .route(telemetry_path, get(metrics))
            .route("/api/v1/snapshot", get(api_snapshot))
            .route("/api/v1/subjects/{subject}", get(api_subject))
            .route("/healthz", get(health))
            .route("/readyz", get(health))
            .with_state(Arc::new(answers));
        Ok(Self {
            listener: listen(address)?,
            clients,
            router,
        })
    }

    /// The address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever. The connections end with this future.
    ///
    /// # Errors
    /// The listener cannot be waited for.
    pub async fn serve(self) -> io::Result<Infallible> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let mut connections = JoinSet::new();
        loop {
            let accepted = select! {
                accepted = listener.accept() => accepted,
                () = self.reap(&mut connections) => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.make_room(&mut connections).await;
                    self.take(&mut connections, stream, peer);
                }
                Err(error) => {
                    warn!(%error, "accepting a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn take(&self, connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let (progress, served) = clients::serve(stream, peer, self.router.clone());
        let task = connections.spawn(served);
        self.clients.add(task, progress);
    }

    /// Waits until there is a place; takes it from a client that has stalled if need be.
    async fn make_room(&self, connections: &mut JoinSet<()>) {
        while connections.len() >= CONNECTIONS {
            self.clients.evict_stalled();
            select! {
                () = self.reap(connections) => {}
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// Waits for a connection's end; for ever where there is none.
    async fn reap(&self, connections: &mut JoinSet<()>) {
        match connections.join_next_with_id().await {
            Some(Ok((id, ()))) => self.clients.remove(id),
            Some(Err(error)) => self.clients.remove(error.id()),
            None => std::future::pending().await,
        }
    }
}

/// Connections inherit the options: the kernel clones the listener's socket (`sk_clone_lock`).
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    // Also once the agent has closed a connection: else the kernel offers the rest of the last
    // answer for minutes to a client that does not read.
    let milliseconds = u32::try_from(clients::STALL_TIME.as_millis()).unwrap_or(u32::MAX);
    set_tcp_user_timeout(&socket, milliseconds)?;
    bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Why there is no answer.
#[derive(Debug)]
enum Failure {
    Gone,
    Late,
    Busy,
    NotFound(&'static str),
    Ledger(String),
    Encode(String),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Gone => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent is ending".to_owned(),
            ),
            Self::Late => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent did not answer in time".to_owned(),
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "slow clients hold the memory for answers".to_owned(),
            ),
            Self::NotFound(what) => {
                return (StatusCode::NOT_FOUND, format!("{what}\n")).into_response();
            }
            Self::Ledger(error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("a ledger cannot be read: {error}"),
            ),
            Self::Encode(error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the snapshot cannot be written: {error}"),
            ),
        };
        warn!(status = status.as_u16(), reason = text, "request failed");
        let retry = (status == StatusCode::SERVICE_UNAVAILABLE)
            .then_some([(header::RETRY_AFTER, RETRY_AFTER)]);
        let response = (status, text + "\n").into_response();
        match retry {
            Some(retry) => (retry, response).into_response(),
            None => response,
        }
    }
}

const fn content_type(value: &'static str) -> [(HeaderName, &'static str); 1] {
    [(header::CONTENT_TYPE, value)]
}

async fn metrics(State(answers): Context, asked: HeaderMap) -> Result<Response, Failure> {
    let response = show(&answers, What::Metrics, &asked).await?;
    Ok((content_type(exposition::CONTENT_TYPE), response).into_response())
}

async fn api_snapshot(State(answers): Context, asked: HeaderMap) -> Result<Response, Failure> {
    let response = show(&answers, What::Json, &asked).await?;
    Ok((content_type("application/json"), response).into_response())
}

/// `subject` is `PID-START_TICKS`, as the snapshot has both.
async fn api_subject(
    State(answers): Context,
    Path(subject): Path<String>,
    asked: HeaderMap,
) -> Result<Response, Failure> {
    let id = subject
        .parse()
        .map_err(|()| Failure::NotFound("a subject is PID-START_TICKS"))?;
    let gzip = gzip::is_taken(&asked);
    let body = answers
        .subject(id, gzip)
        .await?
        .ok_or(Failure::NotFound("no process and no VM is known by that"))?;
    let response = packed(body, gzip);
    Ok((content_type("application/json"), response).into_response())
}

/// An answer that shows the snapshot, with gzip where the client takes it.
async fn show(answers: &Answers, what: What, asked: &HeaderMap) -> Result<Response, Failure> {
    let gzip = gzip::is_taken(asked);
    let body = answers.get(Form { what, gzip }).await?;
    Ok(packed(body, gzip))
}

fn packed(body: Bytes, gzip: bool) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(
        header::VARY,
        HeaderValue::from_static(header::ACCEPT_ENCODING.as_str()),
    );
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The server starts once the hooks are attached, so that being healthy is being ready: the agent
/// answers and the ledgers can be read.
async fn health(State(answers): Context) -> Result<&'static str, Failure> {
    answers.check().await.map(|()| "ok\n")
}
