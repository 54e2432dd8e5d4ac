//! The agent that is to count: one that runs, or one that is started for the test.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::reading::Reading;
use crate::{
    agent::{Request, helpers::Helpers},
    cli::{
        logging::{LogFormat, LogLevel, LogOptions},
        remote::DEFAULT_URL,
        selftest::SelftestOptions,
    },
    logging,
    remote::{Failure, Remote, UNAUTHORIZED},
    start::{Attached, Ground},
    table::snapshot::SCHEMA,
};

/// For one answer: an agent gives up after 10 s itself.
const ANSWER: Duration = Duration::from_secs(12);

/// What is asked for.
const SNAPSHOT: &str = "/api/v1/snapshot";

/// How long it may take until what has happened is shown. Names wait for `/proc` 2 s at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// An agent.
pub enum Counter {
    /// One that runs.
    Running(Remote),
    /// One of the test's own.
    Own(Own),
}

/// An agent of the test's own, in threads of this process.
pub struct Own {
    runtime: Runtime,
    requests: mpsc::Sender<Request>,
}

impl Counter {
    /// Finds the agent, or starts one. To be called while there are no other threads.
    ///
    /// # Errors
    /// What answers is no agent, or one could not be started.
    pub fn find(options: &SelftestOptions) -> Result<Self> {
        if options.own {
            return Own::start(options).map(Self::Own);
        }
        let url = options.url.as_deref().unwrap_or(DEFAULT_URL);
        let remote = Remote::new(url, &options.remote, ANSWER)?;
        match remote.get(SNAPSHOT) {
            Err(Failure::Absent(_)) if options.url.is_none() => Own::start(options)
                .with_context(|| {
                    format!("no agent answers at {url}, and none can be started for the test")
                })
                .map(Self::Own),
            answer => {
                snapshot_of(&remote, answer)?;
                Ok(Self::Running(remote))
            }
        }
    }

    /// Whether it was there before the test.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Which it is.
    pub fn name(&self) -> String {
        match self {
            Self::Running(remote) => format!("the agent at {}", remote.name()),
            Self::Own(_) => "an agent started for this test".to_owned(),
        }
    }

    /// What it shows now.
    ///
    /// # Errors
    /// It does not answer, or not as this version understands.
    pub fn read(&self) -> Result<Reading> {
        let reading: Reading = match self {
            Self::Running(remote) => snapshot_of(remote, remote.get(SNAPSHOT))?,
            Self::Own(own) => own.read()?,
        };
        ensure!(
            reading.schema == SCHEMA,
            "the agent's snapshot has schema {}, and this program knows {SCHEMA}: take the same version",
            reading.schema
        );
        Ok(reading)
    }

    /// What it shows once a condition holds, or when that has not come about in time.
    ///
    /// # Errors
    /// Those of [`Counter::read`].
    pub fn read_until(&self, condition: impl Fn(&Reading) -> bool) -> Result<Reading> {
        let start = Instant::now();
        loop {
            let reading = self.read()?;
            if condition(&reading) || start.elapsed() > PATIENCE {
                return Ok(reading);
            }
            thread::sleep(PAUSE);
        }
    }
}

fn snapshot_of(remote: &Remote, answer: Result<(u16, Vec<u8>), Failure>) -> Result<Reading> {
    let name = format!("{}{SNAPSHOT}", remote.name());
    let (status, text) = answer.map_err(|failure| anyhow!("{}", failure.text()))?;
    ensure!(status != 401, "{name}: {UNAUTHORIZED}");
    ensure!(status == 200, "{name}: HTTP {status} instead of 200");
    serde_json::from_slice(&text).with_context(|| format!("{name} is no snapshot of an agent"))
}

impl Own {
    fn start(options: &SelftestOptions) -> Result<Self> {
        logging::start(LogOptions {
            // What does not attach is in the report, as far as the test needs it.
            level: LogLevel::Error,
            format: LogFormat::Text,
        });
        let ground = Ground::find(&options.counting)?;
        let attached = Attached::attach(&options.counting, &ground, false)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("starting the runtime")?;
        let (requests, questions) = mpsc::channel(1);
        runtime.spawn(attached.run(questions, None, Helpers::own()));
        Ok(Self { runtime, requests })
    }

    fn read(&self) -> Result<Reading> {
        let ask = async {
            let (sender, answer) = oneshot::channel();
            if self.requests.send(Request::Snapshot(sender)).await.is_err() {
                bail!("the agent has ended");
            }
            answer
                .await
                .context("the agent has ended")?
                .context("reading the ledgers")
        };
        let snapshot: Arc<_> = self
            .runtime
            .block_on(async { timeout(ANSWER, ask).await })
            .map_err(|_| anyhow!("the agent did not answer within {ANSWER:?}"))??;
        let value = serde_json::to_value(&*snapshot).context("the snapshot")?;
        serde_json::from_value(value).context("the snapshot")
    }
}
