//! Answers that show a snapshot: each is encoded once for all who wait for it, and the memory of
//! those that clients have not read yet is bounded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prometheus::process_collector::ProcessCollector;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{Failure, PAUSE, gzip, service::Service};
use crate::{
    agent::{Answer, Request},
    export::exposition,
    subjects::SubjectId,
    table::snapshot::Snapshot,
};

/// For the agent to answer, and for the encoding.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long an agent that has answered is taken to be healthy.
const HEALTH_TIME: Duration = Duration::from_secs(1);
/// Bytes of the answers that are being written to clients. A larger one can only be alone.
const BUDGET: usize = 16 * 1024 * 1024;
/// For clients to make room for a new answer: longer than it takes until those that do not read
/// can be made to.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an answer shows of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The exposition.
    Metrics,
    /// All of it.
    Json,
}

/// A kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// What it shows.
    pub what: What,
    /// Whether it is packed.
    pub gzip: bool,
}

/// Makes the answers.
pub struct Answers {
    requests: mpsc::Sender<Request>,
    own: ProcessCollector,
    service: Service,
    budget: Arc<Semaphore>,
    /// When the agent last answered a question for its health.
    healthy: Mutex<Option<Instant>>,
    /// Requests that have no answer yet.
    waiting: AtomicUsize,
    /// The answers to those; nothing while there are none. Whoever has the lock encodes, so that
    /// there is one snapshot at a time, and one answer that is not in the budget yet.
    latest: Mutex<Option<Latest>>,
}

struct Latest {
    asked: Instant,
    snapshot: Arc<Snapshot>,
    encoded: Vec<(Form, Bytes)>,
}

impl Answers {
    /// To the questions that clients have to the agent.
    pub fn new(requests: mpsc::Sender<Request>, service: Service) -> Self {
        Self {
            requests,
            own: ProcessCollector::for_self(),
            service,
            budget: Arc::new(Semaphore::new(BUDGET)),
            healthy: Mutex::new(None),
            waiting: AtomicUsize::new(0),
            latest: Mutex::new(None),
        }
    }

    /// An answer from a snapshot that is not older than this call.
    pub async fn get(&self, form: Form) -> Result<Bytes, Failure> {
        let _unanswered = Unanswered::begin(self);
        timeout(ANSWER_TIME, self.find_or_make(form))
            .await
            .map_err(|_| Failure::Late)?
    }

    /// Whether the agent answers, or did a moment ago: this is asked by those who are no users, too,
    /// and takes a reading of the ledgers.
    pub async fn check(&self) -> Result<(), Failure> {
        let ask = async {
            let mut last = self.healthy.lock().await;
            if last.is_some_and(|last| last.elapsed() < HEALTH_TIME) {
                return Ok(());
            }
            *last = None;
            self.ask().await?;
            *last = Some(Instant::now());
            Ok(())
        };
        timeout(ANSWER_TIME, ask).await.map_err(|_| Failure::Late)?
    }

    async fn find_or_make(&self, form: Form) -> Result<Bytes, Failure> {
        let arrived = Instant::now();
        let mut latest = self.latest.lock().await;
        let latest = match &mut *latest {
            Some(latest) if latest.asked >= arrived => latest,
            stale => {
                // Not kept while the agent makes another.
                *stale = None;
                let asked = Instant::now();
                stale.insert(Latest {
                    asked,
                    snapshot: self.ask().await?,
                    encoded: vec![],
                })
            }
        };
        if let Some((_, bytes)) = latest.encoded.iter().find(|(made, _)| *made == form) {
            return Ok(bytes.clone());
        }
        let text = self
            .encode(&latest.snapshot, form)
            .map_err(Failure::Encode)?;
        let bytes = match self.enter(text) {
            Ok(bytes) => bytes,
            Err(text) => {
                // These may be all that is in the budget.
                latest.encoded.clear();
                self.make_room(text).await?
            }
        };
        latest.encoded.push((form, bytes.clone()));
        Ok(bytes)
    }

    /// One subject as JSON; nothing, if it has no series.
    pub async fn subject(&self, id: SubjectId, gzip: bool) -> Result<Option<Bytes>, Failure> {
        let found = timeout(ANSWER_TIME, self.put(|answer| Request::Subject(id, answer)));
        let Some(detail) = found.await.map_err(|_| Failure::Late)?? else {
            return Ok(None);
        };
        let mut text =
            serde_json::to_vec(&detail).map_err(|error| Failure::Encode(error.to_string()))?;
        if gzip {
            text = gzip::pack(&text).map_err(|error| Failure::Encode(error.to_string()))?;
        }
        match self.enter(text) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(text) => self.make_room(text).await.map(Some),
        }
    }

    async fn ask(&self) -> Result<Arc<Snapshot>, Failure> {
        self.put(Request::Snapshot).await
    }

    async fn put<T>(&self, question: impl FnOnce(Answer<T>) -> Request) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(question(answer))
            .await
            .map_err(|_| Failure::Gone)?;
        answered
            .await
            .map_err(|_| Failure::Gone)?
            .map_err(|error| Failure::Ledger(error.to_string()))
    }

    fn encode(&self, snapshot: &Snapshot, form: Form) -> Result<Vec<u8>, String> {
        let text = match form.what {
            What::Metrics => {
                let mut text =
                    exposition::encode(snapshot, &self.own).map_err(|error| error.to_string())?;
                text.extend(exposition::web::encode(&self.service.served()));
                text
            }
            What::Json => serde_json::to_vec(snapshot).map_err(|error| error.to_string())?,
        };
        if form.gzip {
            return gzip::pack(&text).map_err(|error| error.to_string());
        }
        Ok(text)
    }

    /// Puts an answer into the budget, or gives it back where that is spent.
    fn enter(&self, mut text: Vec<u8>) -> Result<Bytes, Vec<u8>> {
        // It was written by doubling.
        text.shrink_to_fit();
        let size = u32::try_from(text.len().min(BUDGET)).unwrap_or(u32::MAX);
        match Arc::clone(&self.budget).try_acquire_many_owned(size) {
            Ok(permit) => Ok(Bytes::from_owner(Held {
                text,
                _permit: permit,
            })),
            Err(_) => Err(text),
        }
    }

    /// The same, after clients that do not read were made to leave.
    async fn make_room(&self, mut text: Vec<u8>) -> Result<Bytes, Failure> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.enter(text) {
                Ok(bytes) => return Ok(bytes),
                Err(same) => text = same,
            }
            self.service.clients.evict_unread();
            sleep(PAUSE).await;
        }
        Err(Failure::Busy)
    }
}

/// An encoded answer, in the budget until the last client has read it or is gone.
struct Held {
    text: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// A request without an answer yet.
struct Unanswered<'a>(&'a Answers);

impl<'a> Unanswered<'a> {
    fn begin(answers: &'a Answers) -> Self {
        answers.waiting.fetch_add(1, Ordering::Relaxed);
        Self(answers)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        // Who comes meanwhile and has the lock is the last one in turn.
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1
            && let Ok(mut latest) = self.0.latest.try_lock()
        {
            *latest = None;
        }
    }
}

#[cfg(test)]
mod tests;
