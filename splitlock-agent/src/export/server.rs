//! The HTTP server: metrics, health, the JSON snapshot, the page.
//!
//! A slow or silent client holds a connection for a bounded time, and connections are bounded.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus::process_collector::ProcessCollector;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tower_http::{CompressionLevel, compression::CompressionLayer};
use tracing::{debug, warn};

use super::{exposition, page};
use crate::{agent::Request, table::snapshot::Snapshot};

/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 128;
/// From the connection to its end, keep-alive included.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// From the connection, or the last answer, to the whole head of a request. A scraper whose
/// connection was closed meanwhile makes a new one.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// For the agent to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Before accepting again where that failed, as when no file descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);

/// What the handlers share.
struct Shared {
    requests: mpsc::Sender<Request>,
    own: ProcessCollector,
    telemetry_path: String,
}

type Context = State<Arc<Shared>>;

/// A bound server.
pub struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is in use, not this machine's, or not for this user.
    pub async fn bind(
        address: SocketAddr,
        telemetry_path: &str,
        requests: mpsc::Sender<Request>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            requests,
            own: ProcessCollector::for_self(),
            telemetry_path: telemetry_path.to_owned(),
        });
        let router = Router::new()
            .route("/", get(index))
            .route(telemetry_path, get(metrics))
            .route("/api/v1/snapshot", get(api_snapshot))
            .route("/healthz", get(health))
            .route("/readyz", get(health))
            .with_state(shared)
            .layer(CompressionLayer::new().quality(CompressionLevel::Fastest));
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            router,
        })
    }

    /// The address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever.
    pub async fn serve(self) -> Infallible {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let router = self.router.clone();
                    tokio::spawn(async move {
                        let served = timeout(CONNECTION_TIME, serve_connection(stream, router));
                        if let Ok(Err(error)) = served.await {
                            debug!(%peer, %error, "connection");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "accepting a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router) -> hyper::Result<()> {
    let service = TowerToHyperService::new(router.into_service::<Incoming>());
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Asks the agent.
async fn ask(shared: &Shared) -> Result<Arc<Snapshot>, Failure> {
    let (answer, snapshot) = oneshot::channel();
    let asked = async {
        shared
            .requests
            .send(answer)
            .await
            .map_err(|_| Failure::Gone)?;
        snapshot.await.map_err(|_| Failure::Gone)
    };
    timeout(ANSWER_TIME, asked)
        .await
        .map_err(|_| Failure::Late)??
        .map_err(|error| Failure::Ledger(error.to_string()))
}

/// Why there is no snapshot.
enum Failure {
    Gone,
    Late,
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
        (status, text + "\n").into_response()
    }
}

const fn content_type(value: &'static str) -> [(HeaderName, &'static str); 1] {
    [(header::CONTENT_TYPE, value)]
}

async fn metrics(State(shared): Context) -> Result<Response, Failure> {
    let snapshot = ask(&shared).await?;
    let text = exposition::encode(&snapshot, &shared.own)
        .map_err(|error| Failure::Encode(error.to_string()))?;
    Ok((content_type(exposition::CONTENT_TYPE), text).into_response())
}

async fn api_snapshot(State(shared): Context) -> Result<Response, Failure> {
    let snapshot = ask(&shared).await?;
    let text = serde_json::to_vec(&snapshot).map_err(|error| Failure::Encode(error.to_string()))?;
    Ok((content_type("application/json"), text).into_response())
}

async fn index(State(shared): Context) -> Result<Response, Failure> {
    let snapshot = ask(&shared).await?;
    let text = page::render(&snapshot, &shared.telemetry_path);
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    Ok((
        content_type("text/html; charset=utf-8"),
        [(header::CONTENT_SECURITY_POLICY, policy)],
        text,
    )
        .into_response())
}

/// The server starts once the hooks are attached, so that being healthy is being ready: the agent
/// answers and the ledgers can be read.
async fn health(State(shared): Context) -> Result<&'static str, Failure> {
    ask(&shared).await.map(|_| "ok\n")
}
