//! The HTTP server: metrics, health, the JSON snapshot, the page.
//!
//! What a client can take from the agent is bounded: places, time, and memory.

mod answers;
mod authentication;
mod bucket;
mod clients;
mod document;
mod gate;
mod gzip;
pub mod listeners;
pub mod peer;
mod refusals;
mod service;
mod stream;

use std::{convert::Infallible, future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use tokio::{select, sync::mpsc, task::JoinSet, time::sleep};
use tracing::warn;

use self::{
    answers::{Answers, Form, What},
    clients::Clients,
    document::Document,
    gate::Gate,
    listeners::{Listener, Waiting},
    peer::Peer,
    refusals::{Cause, Refusals},
    service::Service,
    stream::Stream,
};
use super::{exposition, web_config::Live};
use crate::agent::Request;

/// Connections at a time. A further one takes the place of one that has stalled, or waits.
const CONNECTIONS: usize = 64;
/// Of one client's. A further one takes the place of the one that it has kept waiting for longest.
const CONNECTIONS_OF_ONE: usize = CONNECTIONS / 2;
/// Before looking again for a place or memory, and before accepting again where that failed, as
/// when no file descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);
/// The same, where it is the client's own place.
const SHORT_PAUSE: Duration = Duration::from_millis(5);
/// When a client that was refused should try again, in seconds.
const RETRY_AFTER: &str = "5";

type Context = State<Arc<Answers>>;

/// A bound server.
pub struct Server {
    listeners: Vec<Listener>,
    clients: Clients,
    gate: Arc<Gate>,
    router: Router,
    /// Which listener is asked first for its next connection.
    first: usize,
}

impl Server {
    /// For these sockets; needs no runtime.
    ///
    /// # Errors
    /// Never in practice: the page can be packed.
    pub fn new(
        listeners: Vec<Listener>,
        config: Arc<Live>,
        telemetry_path: &str,
        requests: mpsc::Sender<Request>,
    ) -> io::Result<Self> {
        let clients = Clients::default();
        let refusals = Arc::new(Refusals::default());
        let service = Service {
            clients: clients.clone(),
            config: Arc::clone(&config),
            refusals: Arc::clone(&refusals),
        };
        let answers = Answers::new(requests, service);
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
            listeners,
            clients,
            gate: Arc::new(Gate::new(config, refusals)),
            router,
            first: 0,
        })
    }

    /// Serves for ever. The connections end with this future.
    ///
    /// # Errors
    /// A listener cannot be waited for.
    pub async fn serve(mut self) -> io::Result<Infallible> {
        let listeners = self.listeners.drain(..).map(Listener::wait);
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        let mut connections = JoinSet::new();
        loop {
            let accepted = select! {
                accepted = accept(&listeners, &mut self.first) => accepted,
                () = reap(&self.clients, &mut connections) => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.make_room(peer, &mut connections).await;
                    self.take(&mut connections, stream, peer);
                }
                Err(error) => {
                    warn!(%error, "accepting a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn take(&self, connections: &mut JoinSet<()>, stream: Stream, peer: Peer) {
        let gate = Arc::clone(&self.gate);
        let (progress, served) = clients::serve(stream, peer, gate, self.router.clone());
        let task = connections.spawn(served);
        self.clients.add(task, progress, peer);
    }

    /// Waits until there is a place for a client; takes it from one of its own connections where it has
    /// many, else from one that has stalled, if need be.
    async fn make_room(&self, peer: Peer, connections: &mut JoinSet<()>) {
        loop {
            let is_own = self.clients.count_of(peer) >= CONNECTIONS_OF_ONE;
            if !is_own && connections.len() < CONNECTIONS {
                return;
            }
            let was_evicted = if is_own {
                self.clients.evict_own(peer)
            } else {
                self.clients.evict_stalled()
            };
            if was_evicted {
                self.gate.refuse(Cause::Connection);
            }
            let pause = if is_own { SHORT_PAUSE } else { PAUSE };
            select! {
                () = reap(&self.clients, connections) => {}
                () = sleep(pause) => {}
            }
        }
    }
}

/// The next connection, of each socket in turn.
async fn accept(listeners: &[Waiting], first: &mut usize) -> io::Result<(Stream, Peer)> {
    poll_fn(|task| {
        for step in 0..listeners.len() {
            let index = (*first + step) % listeners.len();
            if let Poll::Ready(accepted) = listeners[index].poll_accept(task) {
                *first = index + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Waits for a connection's end; for ever where there is none.
async fn reap(clients: &Clients, connections: &mut JoinSet<()>) {
    match connections.join_next_with_id().await {
        Some(Ok((id, ()))) => clients.remove(id),
        Some(Err(error)) => clients.remove(error.id()),
        None => std::future::pending().await,
    }
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
