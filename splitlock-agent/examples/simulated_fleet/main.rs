//! The expositions of many hosts that do not exist, written by the agent's own code: what a fleet's
//! Prometheus has to bear. `cargo xtask fleet --simulate` starts it.
//!
//! `simulated_fleet ADDRESS HOSTS` serves `/hosts/N/metrics` for each N below HOSTS, and says on
//! standard output where.

mod host;
mod random;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::SystemTime};

use anyhow::{Context as _, Result, bail};
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::process_collector::ProcessCollector;
use splitlock_agent::export::exposition;
use tokio::net::TcpListener;
use tower_http::{CompressionLevel, compression::CompressionLayer};

struct Fleet {
    hosts: u32,
    own: ProcessCollector,
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulated_fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, hosts] = &words[..] else {
        bail!("usage: simulated_fleet ADDRESS HOSTS");
    };
    let address: SocketAddr = address.parse().with_context(|| address.clone())?;
    let fleet = Arc::new(Fleet {
        hosts: hosts.parse().with_context(|| format!("HOSTS: {hosts}"))?,
        own: ProcessCollector::for_self(),
    });
    let router = Router::new()
        .route("/hosts/{number}/metrics", get(metrics))
        .with_state(fleet)
        // As the agent does.
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest));
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(async {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("listening on {address}"))?;
            println!("serving on {}", listener.local_addr()?);
            axum::serve(listener, router).await.context("serving")
        })
}

async fn metrics(State(fleet): State<Arc<Fleet>>, Path(number): Path<u32>) -> Response {
    if number >= fleet.hosts {
        return StatusCode::NOT_FOUND.into_response();
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let snapshot = host::snapshot(number, now);
    match exposition::encode(&snapshot, &fleet.own) {
        Ok(text) => ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
