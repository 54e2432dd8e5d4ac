//! An agent's API, as `top` reads it.

use std::time::Duration;

use anyhow::Result;

use super::answer::{self, Answer, Detail};
use crate::{
    cli::remote::RemoteOptions,
    remote::{self, UNAUTHORIZED},
    subjects::SubjectId,
};

/// For a whole answer; the agent itself gives up making one after 10 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// An agent's API.
pub struct Remote(remote::Remote);

impl Remote {
    /// The agent at `url`, which is not asked yet.
    ///
    /// # Errors
    /// What is wrong with the URL, or with how to ask.
    pub fn new(url: &str, options: &RemoteOptions) -> Result<Self> {
        remote::Remote::new(url, options, PATIENCE).map(Self)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// What there is to show.
    ///
    /// # Errors
    /// Why there is no answer, or what is wrong with it.
    pub fn snapshot(&self) -> Result<Answer, String> {
        let path = "/api/v1/snapshot";
        match self.get(path)? {
            Some(body) => answer::read(&body),
            None => Err(format!(
                "{}{path}: HTTP 404; no splitlock-agent is there",
                self.name()
            )),
        }
    }

    /// One subject in full; `None` where the agent has no more of it.
    ///
    /// # Errors
    /// As above.
    pub fn detail(&self, key: SubjectId) -> Result<Option<Detail>, String> {
        match self.get(&format!("/api/v1/subjects/{}", key.label()))? {
            Some(body) => answer::read(&body).map(Some),
            None => Ok(None),
        }
    }

    /// The body of a path; `None` for 404.
    fn get(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let (status, body) = self.0.get(path).map_err(remote::Failure::text)?;
        let url = format!("{}{path}", self.name());
        match status {
            200 => Ok(Some(body)),
            404 => Ok(None),
            401 => Err(format!("{url}: {UNAUTHORIZED}")),
            503 => Err(format!("{url}: HTTP 503; the agent is overburdened")),
            other => Err(format!("{url}: HTTP {other} instead of 200")),
        }
    }
}
