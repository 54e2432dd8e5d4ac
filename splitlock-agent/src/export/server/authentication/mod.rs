//! Whether a request comes from a user of the web configuration.
//!
//! bcrypt is made to be slow. What was right once is remembered, so that a scraper costs a hash; all
//! else is checked one at a time, in turn, and for a share of the time only, so that neither the host
//! nor a scraper feels a guesser.

mod credentials;
mod failures;
mod known;
mod turns;

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;
use tokio::{sync::oneshot, time::timeout};

use self::{
    credentials::Credentials,
    known::Known,
    turns::{Job, Turns},
};
use super::{peer::Peer, refusals::Refusals};
use crate::export::web_config::Users;

/// For a check, with the wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a request's credentials are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are a user's.
    Right,
    /// They are nobody's, or there are none.
    Wrong,
    /// This client has been wrong too often.
    TooOften,
    /// Too many others want a check.
    Busy,
}

/// Checks credentials.
pub struct Authentication {
    known: Known,
    turns: Arc<Turns>,
}

impl Authentication {
    /// Nothing is known yet.
    pub fn new(refusals: Arc<Refusals>) -> Self {
        Self {
            known: Known::new(),
            turns: Turns::new(refusals),
        }
    }

    /// Judges a request's head.
    pub async fn judge(&self, users: &Users, peer: Peer, head: &HeaderMap) -> Verdict {
        let Some(Credentials { name, password }) = Credentials::of(head) else {
            return Verdict::Wrong;
        };
        let check = users.check(&name);
        let digest = self.known.digest(&name, &check.hash, &password);
        match self.known.verdict(&name, &digest) {
            Some(true) => return Verdict::Right,
            Some(false) => return Verdict::Wrong,
            None => {}
        }
        let is_user = check.is_user;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            peer,
            hash: check.hash,
            is_user,
            password,
            answer,
        };
        if let Err(verdict) = self.turns.enter(job) {
            return verdict;
        }
        let Ok(Ok(is_right)) = timeout(PATIENCE, answered).await else {
            return Verdict::Busy;
        };
        self.known.learn(&name, digest, is_right);
        if is_right {
            Verdict::Right
        } else {
            Verdict::Wrong
        }
    }
}
