//! The daemon: from the command line to the end of the last connection.

use std::{pin::pin, process::ExitCode};

use anyhow::{Context as _, Result};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{info, warn};

use crate::{
    agent::{End, Request, events::EventLines, helpers::Helpers},
    cli::{events::Events, logging::LogLevel, run::RunOptions},
    confine::separation::Separation,
    export::{
        event_log::{EventLog, journal},
        server::Server,
    },
    logging, memory,
    start::{Attached, Ground},
};

/// The exit status that asks to be started again: `EX_TEMPFAIL` of sysexits(3).
pub const START_AGAIN: u8 = 75;

/// Runs the agent until SIGINT or SIGTERM, or until it has to be started again.
///
/// # Errors
/// What is missing on this machine, with what to do about it.
pub fn run(options: &RunOptions) -> Result<ExitCode> {
    memory::keep_one_heap();
    logging::start(options.log);
    let ground = Ground::find(&options.counting)?;
    let prepared = Prepared::new(options, &ground)?;
    let keeper = prepared.helpers.keeper().cloned();
    let status = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(serve(options, prepared));
    if let Some(keeper) = keeper {
        keeper.finish();
    }
    status
}

/// What takes rights to open, opened while the process has one thread. A signal ends the process until
/// the runtime waits for it, and with it all that was attached.
struct Prepared {
    server: Server,
    attached: Attached,
    helpers: Helpers,
    questions: mpsc::Receiver<Request>,
}

impl Prepared {
    fn new(options: &RunOptions, ground: &Ground) -> Result<Self> {
        let RunOptions {
            web,
            counting,
            events: _,
            log,
            privileges,
        } = options;
        // Beside the attaching, which takes longer.
        let separation =
            Separation::begin(privileges, &counting.paths.paths()).map_err(anyhow::Error::msg)?;
        let (requests, questions) = mpsc::channel(16);
        // Before the hooks: a second agent fails here and counts nothing.
        let server = Server::bind(web.listen_address, &web.telemetry_path, requests)
            .with_context(|| format!("listening on {}", web.listen_address))?;
        let attached = Attached::attach(counting, ground, log.level == LogLevel::Debug)?;
        if options.events.events == Events::Journald {
            journal::open().context("--events journald")?;
        }
        let helpers = match separation {
            Some(separation) => separation.complete(|| attached.reads_maps()),
            None => Helpers::own(),
        };
        Ok(Self {
            server,
            attached,
            helpers,
            questions,
        })
    }
}

async fn serve(options: &RunOptions, prepared: Prepared) -> Result<ExitCode> {
    let RunOptions { web, events, .. } = options;
    let Prepared {
        server,
        attached,
        helpers,
        questions,
    } = prepared;
    if let Some(keeper) = helpers.keeper() {
        keeper.listen().context("waiting for the keeper")?;
    }
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;

    let event_lines = match events.events.form() {
        Some(form) => {
            let log = EventLog::start(form).context("--events")?;
            Some(EventLines::new(log, events.per_second))
        }
        None => None,
    };
    let address = server.address().context("the listener's address")?;
    info!("serving on http://{address}{}", web.telemetry_path);

    let agent = pin!(attached.run(questions, event_lines, helpers));
    // A task of its own: clients are served also while the agent reads.
    let mut serving = tokio::spawn(server.serve());
    let mut status = ExitCode::SUCCESS;
    select! {
        end = agent => if end == End::KvmLoaded {
            warn!(
                "KVM was loaded, whose hooks can be attached only at the start: ending with status \
                 {START_AGAIN}, so that the service manager starts the agent again"
            );
            status = ExitCode::from(START_AGAIN);
        },
        ended = &mut serving => {
            let Err(error) = ended.context("the server ended")?;
            return Err(error).context("the server cannot wait for clients");
        }
        _ = interrupt.recv() => info!("SIGINT: ending"),
        _ = terminate.recv() => info!("SIGTERM: ending"),
    }
    // Nobody is accepted any more, and no request waits for an agent that is gone.
    serving.abort();
    let _ = serving.await;
    // The programs and maps end with the agent, which owns them.
    Ok(status)
}
