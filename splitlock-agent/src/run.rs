//! The daemon: from the command line to the end of the last connection.

use std::pin::pin;

use anyhow::{Context as _, Result};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::info;

use crate::{
    agent::events::EventLines,
    cli::{logging::LogLevel, run::RunOptions},
    export::{event_log::EventLog, server::Server},
    logging, memory,
    start::{Attached, Ground},
};

/// Runs the agent until SIGINT or SIGTERM.
///
/// # Errors
/// What is missing on this machine, with what to do about it.
pub fn run(options: &RunOptions) -> Result<()> {
    memory::keep_one_heap();
    logging::start(options.log);
    let ground = Ground::find(&options.counting)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(serve(options, &ground))
}

async fn serve(options: &RunOptions, ground: &Ground) -> Result<()> {
    let RunOptions {
        web,
        counting,
        events,
        log,
    } = options;
    // Before the hooks: a signal during the attaching must also end the agent.
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;

    let (requests, questions) = mpsc::channel(16);
    // Before the hooks as well: a second agent fails here and counts nothing.
    let server = Server::bind(web.listen_address, &web.telemetry_path, requests)
        .with_context(|| format!("listening on {}", web.listen_address))?;
    let attached = Attached::attach(counting, ground, log.level == LogLevel::Debug)?;
    let event_lines = match events.events.form() {
        Some(form) => {
            let log = EventLog::start(form).context("--events")?;
            Some(EventLines::new(log, events.per_second))
        }
        None => None,
    };
    let address = server.address().context("the listener's address")?;
    info!("serving on http://{address}{}", web.telemetry_path);

    let agent = pin!(attached.run(questions, event_lines));
    // A task of its own: clients are served also while the agent reads.
    let mut serving = tokio::spawn(server.serve());
    select! {
        () = agent => {}
        ended = &mut serving => {
            let Err(error) = ended;
            return Err(error).context("the server ended");
        }
        _ = interrupt.recv() => info!("SIGINT: ending"),
        _ = terminate.recv() => info!("SIGTERM: ending"),
    }
    // Nobody is accepted any more, and no request waits for an agent that is gone.
    serving.abort();
    let _ = serving.await;
    // The programs and maps end with the agent, which owns them.
    Ok(())
}
