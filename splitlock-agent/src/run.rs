//! The daemon: from the command line to the end of the last connection.

use std::{convert::Infallible, future::pending, pin::pin, process::ExitCode};

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
        web_config::Live,
    },
    logging, memory,
    service_manager::Line,
    start::{Attached, Ground},
};

mod web;

use self::web::Web;

/// The exit status that asks to be started again: `EX_TEMPFAIL` of sysexits(3).
pub const START_AGAIN: u8 = 75;

/// Runs the agent until SIGINT or SIGTERM, or until it has to be started again.
///
/// # Errors
/// What is missing on this machine, with what to do about it.
pub fn run(options: &RunOptions) -> Result<ExitCode> {
    memory::keep_one_heap();
    logging::start(options.log);
    // Before anything is attached, and while every file can be read.
    let config = Live::load(options.web.config_file.as_deref())?;
    if options.check {
        web::check(&options.web.addresses(), &config)?;
        println!("the flags and the web configuration are right");
        return Ok(ExitCode::SUCCESS);
    }
    let service_manager = Line::open();
    let ground = Ground::find(&options.counting)?;
    let prepared = Prepared::new(options, config, &ground)?;
    let keeper = prepared.helpers.keeper().cloned();
    let status = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(serve(options, prepared, service_manager));
    if let Some(keeper) = keeper {
        keeper.finish();
    }
    status
}

/// What takes rights to open, opened while the process has one thread. A signal ends the process until
/// the runtime waits for it, and with it all that was attached.
struct Prepared {
    web: Web,
    attached: Attached,
    helpers: Helpers,
    requests: mpsc::Sender<Request>,
    questions: mpsc::Receiver<Request>,
}

impl Prepared {
    fn new(options: &RunOptions, config: Live, ground: &Ground) -> Result<Self> {
        let RunOptions {
            check: _,
            web,
            counting,
            events: _,
            log,
            privileges,
        } = options;
        let (requests, questions) = mpsc::channel(16);
        // Before the hooks: a second agent fails here and counts nothing. Before the helpers, too, which
        // are to have no socket that was handed over.
        let web = Web::open(web, config, requests.clone())?;
        // Beside the attaching, which takes longer.
        let separation =
            Separation::begin(privileges, &counting.paths.paths()).map_err(anyhow::Error::msg)?;
        let attached = Attached::attach(counting, ground, log.level == LogLevel::Debug)?;
        if options.events.events == Events::Journald {
            journal::open().context("--events journald")?;
        }
        let helpers = match separation {
            Some(mut separation) => {
                separation.leave_readable(web.config.folders());
                separation.complete(|| attached.reads_maps())
            }
            None => Helpers::own(),
        };
        Ok(Self {
            web,
            attached,
            helpers,
            requests,
            questions,
        })
    }
}

async fn serve(
    options: &RunOptions,
    prepared: Prepared,
    service_manager: Line,
) -> Result<ExitCode> {
    let RunOptions { events, .. } = options;
    let Prepared {
        web,
        attached,
        helpers,
        requests: asker,
        questions,
    } = prepared;
    if let Some(keeper) = helpers.keeper() {
        keeper.listen().context("waiting for the keeper")?;
    }
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut detach = signal(SignalKind::user_defined1()).context("waiting for SIGUSR1")?;

    let service_manager = service_manager.enter().context("NOTIFY_SOCKET")?;
    let event_lines = match events.events.form() {
        Some(form) => {
            let log = EventLog::start(form).context("--events")?;
            Some(EventLines::new(log, events.per_second))
        }
        None => None,
    };
    let served = web.tell();
    let Web { server, files, .. } = web;

    let agent = pin!(attached.run(questions, event_lines, helpers));
    // A task of its own: clients are served also while the agent reads.
    let mut serving = tokio::spawn(server.serve());
    let mut status = ExitCode::SUCCESS;
    let detaching = async {
        while detach.recv().await.is_some() && asker.send(Request::Detach).await.is_ok() {}
        pending::<Infallible>().await
    };
    let why = select! {
        end = agent => match end {
            End::KvmLoaded => {
                warn!(
                    "KVM was loaded, whose hooks can be attached only at the start: ending with status \
                     {START_AGAIN}, so that the service manager starts the agent again"
                );
                status = ExitCode::from(START_AGAIN);
                "KVM was loaded: starting again"
            }
            End::Unasked => "nobody can ask any more",
        },
        never = detaching => match never {},
        ended = &mut serving => {
            let Err(error) = ended.context("the server ended")?;
            return Err(error).context("the server cannot wait for clients");
        }
        never = service_manager.attend(&asker, &served) => match never {},
        _ = interrupt.recv() => "SIGINT: ending",
        _ = terminate.recv() => "SIGTERM: ending",
    };
    info!("{why}");
    service_manager.part(why).await;
    // Nobody is accepted any more, and no request waits for an agent that is gone.
    serving.abort();
    let _ = serving.await;
    drop(files);
    // The programs and maps end with the agent, which owns them.
    Ok(status)
}
