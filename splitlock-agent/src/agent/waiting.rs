//! Requests that wait for the names of new subjects.

use std::{sync::Arc, time::Duration};

use aya::maps::MapError;
use tokio::time::{Instant, sleep_until};

use super::{Agent, Request};
use crate::table::snapshot::LedgerFullness;

/// How long an answer waits for names. A subject without one is not shown yet, as its labels would
/// be others than at the next scrape.
const PATIENCE: Duration = Duration::from_millis(250);

/// The requests, and what was read for them.
#[derive(Default)]
pub struct Waiting {
    requests: Vec<Request>,
    read: Option<(Instant, LedgerFullness)>,
}

impl Waiting {
    /// Waits until the answers cannot wait any longer; for ever while nobody does.
    pub async fn is_over(&self) {
        match &self.read {
            Some((since, _)) => sleep_until(*since + PATIENCE).await,
            None => std::future::pending().await,
        }
    }
}

impl Request {
    fn refuse(self, error: MapError) {
        // Nobody waits any more where the connection was closed.
        let _ = match self {
            Self::Snapshot(answer) => answer.send(Err(error)).is_ok(),
            Self::Subject(_, answer) => answer.send(Err(error)).is_ok(),
            Self::Detach => false,
            Self::Pulse(answer) => answer.send(()).is_ok(),
        };
    }
}

impl Agent {
    /// Reads the ledgers for a request, and answers it if all subjects have names.
    pub(super) fn take_request(&mut self, request: Request, waiting: &mut Waiting) {
        if let Request::Pulse(answer) = request {
            // It is the asking that tells, not what the ledgers hold.
            let _ = answer.send(());
            return;
        }
        if waiting.read.is_none() {
            self.look_at_host();
            self.expire();
            match self.read_all() {
                Ok(ledgers) => waiting.read = Some((Instant::now(), ledgers)),
                Err(error) => {
                    request.refuse(error);
                    return;
                }
            }
            self.ask_who_is_new();
        }
        waiting.requests.push(request);
        if self.inquiries.is_idle() {
            self.answer(waiting);
        }
    }

    /// Answers all that wait.
    pub(super) fn answer(&mut self, waiting: &mut Waiting) {
        let Some((_, ledgers)) = waiting.read.take() else {
            return;
        };
        let mut ledgers = Some(ledgers);
        let mut snapshot = None;
        // Nobody waits any more where the connection was closed.
        for request in waiting.requests.drain(..) {
            match request {
                Request::Snapshot(answer) => {
                    let snapshot = snapshot.get_or_insert_with(|| {
                        Arc::new(self.snapshot(ledgers.take().unwrap_or_default()))
                    });
                    let _ = answer.send(Ok(Arc::clone(snapshot)));
                }
                Request::Subject(id, answer) => {
                    let _ = answer.send(Ok(self.detail(id)));
                }
                // Does not wait.
                Request::Detach => {}
                Request::Pulse(answer) => {
                    let _ = answer.send(());
                }
            }
        }
    }
}
