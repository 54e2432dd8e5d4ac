//! Whose credentials are checked next: one check at a time, and after a wrong one a rest.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant as Moment,
};

use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::warn;

use super::{
    super::{
        peer::Peer,
        refusals::{Cause, Refusals},
    },
    Verdict,
    failures::Failures,
};

/// Checks that wait.
const WAITING: usize = 16;
/// Of one client's.
const OF_ONE_CLIENT: usize = 2;
/// After a wrong check, in times of what it took: guessers have a quarter of one CPU at most.
const REST: u32 = 3;

/// A check to be made.
pub struct Job {
    pub peer: Peer,
    pub hash: String,
    pub is_user: bool,
    pub password: Vec<u8>,
    pub answer: oneshot::Sender<bool>,
}

/// Makes the checks.
pub struct Turns {
    refusals: Arc<Refusals>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order of their coming.
    waiting: Vec<Job>,
    is_running: bool,
    failures: Failures,
}

impl State {
    /// Of whom was wrong least often, the first. Those whose client has gone are left out.
    fn next(&mut self) -> Option<Job> {
        self.waiting.retain(|job| !job.answer.is_closed());
        let now = Instant::now();
        let failures = &mut self.failures;
        let index = (0..self.waiting.len())
            .min_by_key(|index| (failures.of(self.waiting[*index].peer, now), *index))?;
        Some(self.waiting.remove(index))
    }

    /// Has the one wait no longer whose client was wrong most often, if that is more often than
    /// `failures`.
    fn make_room(&mut self, failures: u32) -> bool {
        let now = Instant::now();
        let most = (0..self.waiting.len())
            .map(|index| (self.failures.of(self.waiting[index].peer, now), index))
            .max();
        match most {
            Some((most, index)) if most > failures => {
                self.waiting.remove(index);
                true
            }
            _ => false,
        }
    }
}

impl Turns {
    /// Nobody waits.
    pub fn new(refusals: Arc<Refusals>) -> Arc<Self> {
        Arc::new(Self {
            refusals,
            state: Mutex::default(),
        })
    }

    /// Has a check made; its client hears of it, or that it lost its place.
    pub fn enter(self: &Arc<Self>, job: Job) -> Result<(), Verdict> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.failures.are_too_many(job.peer, now) {
            return Err(Verdict::TooOften);
        }
        state.waiting.retain(|job| !job.answer.is_closed());
        let own = state.waiting.iter().filter(|other| other.peer == job.peer);
        if own.count() >= OF_ONE_CLIENT {
            return Err(Verdict::Busy);
        }
        let failures = state.failures.of(job.peer, now);
        if state.waiting.len() >= WAITING && !state.make_room(failures) {
            return Err(Verdict::Busy);
        }
        state.waiting.push(job);
        if !state.is_running {
            state.is_running = true;
            // Not the request's own task: a client that leaves would take the rest along.
            tokio::spawn(Arc::clone(self).run());
        }
        Ok(())
    }

    async fn run(self: Arc<Self>) {
        loop {
            let job = {
                let mut state = self.lock();
                let Some(job) = state.next() else {
                    state.is_running = false;
                    return;
                };
                job
            };
            let Job {
                peer,
                hash,
                is_user,
                password,
                answer,
            } = job;
            let start = Moment::now();
            let checked = spawn_blocking(move || {
                // The hash is one: it was read as such.
                bcrypt::verify(password, &hash).unwrap_or(false)
            });
            let is_right = checked.await.unwrap_or(false) && is_user;
            let time = start.elapsed();
            if !is_right {
                self.refusals.add(Cause::Credentials);
                if self.lock().failures.add(peer, Instant::now()) {
                    warn!(
                        client = %peer,
                        "a client has sent wrong credentials again and again; more are not checked for now"
                    );
                }
            }
            // The client may have gone.
            let _ = answer.send(is_right);
            if !is_right {
                sleep(time * REST).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What it guards is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
