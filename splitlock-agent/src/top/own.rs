//! Probes of `top`'s own: an agent inside this process, without a server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::answer::{self, Answer, Detail, Versioned};
use crate::{
    agent::{self, Request, helpers::Helpers},
    cli::counting::CountingOptions,
    start::{Attached, Ground},
    subjects::SubjectId,
};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The agent inside. Its probes end with it, or with the process.
pub struct Own {
    requests: mpsc::Sender<Request>,
    runtime: Runtime,
}

impl Own {
    /// Attaches the probes. To be called while the process has one thread: see [`Ground::find`].
    ///
    /// # Errors
    /// What is missing on this machine, with what to do about it.
    pub fn start(options: &CountingOptions) -> Result<Self> {
        let ground = Ground::find(options)?;
        let attached = Attached::attach(options, &ground, false)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("starting the runtime")?;
        let (requests, questions) = mpsc::channel(1);
        runtime.spawn(attached.run(questions, None, Helpers::own()));
        Ok(Self { requests, runtime })
    }

    /// What there is to show.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn snapshot(&self) -> Result<Answer, String> {
        same(&*self.ask(Request::Snapshot)?)
    }

    /// One subject in full; `None` where the agent has no more of it.
    ///
    /// # Errors
    /// As above.
    pub fn detail(&self, subject: SubjectId) -> Result<Option<Detail>, String> {
        self.ask(|answer| Request::Subject(subject, answer))?
            .map(|detail| same(&detail))
            .transpose()
    }

    fn ask<T>(&self, question: impl FnOnce(agent::Answer<T>) -> Request) -> Result<T, String> {
        let ended = || "the probes have ended".to_owned();
        let answered = async {
            let (sender, answer) = oneshot::channel();
            let sent = self.requests.send(question(sender)).await;
            sent.map_err(|_| ended())?;
            answer
                .await
                .map_err(|_| ended())?
                .map_err(|error| format!("the kernel refused a ledger: {error}"))
        };
        self.runtime
            .block_on(async { timeout(PATIENCE, answered).await })
            .map_err(|_| format!("the probes did not answer within {PATIENCE:?}"))?
    }
}

/// In the form in which an agent elsewhere would have told it.
fn same<T: Versioned>(told: &impl Serialize) -> Result<T, String> {
    let body = serde_json::to_vec(told).map_err(|error| error.to_string())?;
    answer::read(&body)
}
