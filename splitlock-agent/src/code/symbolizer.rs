//! The agent's side: asks, in turn and with bounded patience, a process that looks at files.
//!
//! The process is there only while there are questions, and for a moment longer. When it dies or
//! takes too long, the question is answered by what it had said so far, what it was looking at is
//! avoided for a while, and another process goes on.

use std::{
    ffi::OsString,
    fmt,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;
use tracing::{debug, warn};

use super::{
    Code, Question,
    known::{Avoided, Files},
    turns::{Group, Turns},
    wire::{Place, Reply, Request},
    worker::{Event, Worker, Workers},
};
use crate::{keeper::Keeper, subjects::paths::Paths};

/// Questions that are open at a time, at some 500 bytes each.
const OPEN: usize = 256;
/// For one question. Large programs take some 100 ms for the first, and many times that where the
/// host has no CPU time to spare: the process is nice.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the process waits for another question.
const REST: Duration = Duration::from_secs(10);
/// Before another process is started after one that died; doubled for each that dies before it has
/// answered anything.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// There are too many open questions; this one is open no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many addresses are being looked at")]
pub struct Busy<K>(pub K);

/// Questions that had no whole answer, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Not asked, as too many were open, or those of its group hang.
    pub refused: u64,
    /// Took too long.
    pub overdue: u64,
    /// At which the process died.
    pub died: u64,
}

/// Asks what is at addresses. `K` is the asker's name for a question.
pub struct Symbolizer<K> {
    workers: Workers,
    worker: Option<Worker>,
    waiting: Turns<Open<K>>,
    asked: Option<Asked<K>>,
    /// When the process is not needed any longer.
    rests_until: Instant,
    /// When the next process may be started.
    pauses_until: Instant,
    /// Processes that died since the last answer.
    deaths: u32,
    files: Files,
    avoided: Avoided,
    failures: Failures,
    patience: Duration,
    rest: Duration,
}

struct Open<K> {
    key: K,
    question: Question,
    exe: Option<String>,
}

/// What the process is at.
struct Asked<K> {
    key: K,
    group: Group,
    since: Instant,
    due: Instant,
    /// The answer if there is no other, and what it is looking at.
    sketch: (Code, Option<String>),
}

impl<K> fmt::Debug for Symbolizer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbolizer")
            .field("waiting", &self.waiting.len())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl<K> Symbolizer<K> {
    /// Asks this very program, started anew.
    pub fn new(paths: &Paths) -> Self {
        // Also where the program's file was replaced since.
        Self::of_program("/proc/self/exe", paths)
    }

    /// Asks a splitlock-agent.
    pub fn of_program(program: impl Into<OsString>, paths: &Paths) -> Self {
        let mut command = vec![program.into(), "symbolize".into()];
        command.extend(paths.flags());
        Self::of_command(command, PATIENCE, REST)
    }

    /// Has the keeper start who is asked.
    pub fn of_keeper(keeper: &Arc<Keeper>) -> Self {
        let workers = Workers::of_keeper(Arc::clone(keeper));
        Self::of_workers(workers, PATIENCE, REST)
    }

    /// Gives each question up after another time.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn of_command(command: Vec<OsString>, patience: Duration, rest: Duration) -> Self {
        Self::of_workers(Workers::new(command), patience, rest)
    }

    fn of_workers(workers: Workers, patience: Duration, rest: Duration) -> Self {
        let now = Instant::now();
        Self {
            workers,
            worker: None,
            waiting: Turns::new(OPEN),
            asked: None,
            rests_until: now,
            pauses_until: now,
            deaths: 0,
            files: Files::default(),
            avoided: Avoided::default(),
            failures: Failures::default(),
            patience,
            rest,
        }
    }

    /// Asks; the answer comes from [`Self::next`]. `exe` is the path of the program that the subject
    /// runs or ran, if that is known: it may be the file when the subject has ended.
    ///
    /// # Errors
    /// There are too many questions; the one that is named is dropped, and counted. It is of the group
    /// that has most of them.
    pub fn ask(
        &mut self,
        key: K,
        group: Group,
        question: Question,
        exe: Option<&str>,
    ) -> Result<(), Busy<K>> {
        let exe = exe.map(str::to_owned);
        match self.waiting.add(group, Open { key, question, exe }) {
            None => Ok(()),
            Some(Open { key, .. }) => {
                self.failures.refused += 1;
                Err(Busy(key))
            }
        }
    }

    /// Whether a question would be looked at now.
    pub fn is_available(&self) -> bool {
        self.worker.is_some() || self.pauses_until <= Instant::now()
    }

    /// Questions that had no whole answer.
    pub const fn failures(&self) -> Failures {
        self.failures
    }

    /// The next answer; waits for ever while nothing is asked. Dropping it loses nothing.
    pub async fn next(&mut self) -> (K, Code) {
        loop {
            if let Some(answer) = self.hand_out() {
                return answer;
            }
            let Self {
                workers,
                worker,
                asked,
                waiting,
                rests_until,
                pauses_until,
                ..
            } = self;
            let alarm = match (&asked, &worker) {
                (Some(asked), _) => Some(asked.due),
                (None, Some(_)) => Some(*rests_until),
                (None, None) if !waiting.is_empty() => Some(*pauses_until),
                (None, None) => None,
            };
            let event = tokio::select! {
                event = Worker::next(worker) => Some(event),
                () = ring(alarm) => None,
                () = workers.reap() => continue,
            };
            let answer = match event {
                Some(Event::Said(reply)) => self.take(*reply),
                Some(Event::Ended) => self.lose("the process that looked at it died"),
                None if self.asked.is_some() => self.lose("looking at it took too long"),
                None => {
                    // It has rested for long enough, or may be started now.
                    self.end();
                    None
                }
            };
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// Asks the next question, if there is one and the process is idle. An answer comes from here
    /// only if there can be no process.
    fn hand_out(&mut self) -> Option<(K, Code)> {
        if self.asked.is_some() || self.waiting.is_empty() {
            return None;
        }
        let now = Instant::now();
        if let Some(answer) = self.refuse_stuck() {
            return Some(answer);
        }
        if self.worker.is_none() {
            if now < self.pauses_until {
                return None;
            }
            match self.workers.start() {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => {
                    self.pause(now);
                    let (_, Open { key, question, .. }) = self.waiting.take_next()?;
                    let mut code = Code::of_kernel(question.in_file);
                    code.lacks(&format!("no process to look at it: {error}"));
                    self.failures.died += 1;
                    return Some((key, code));
                }
            }
        }
        let (group, Open { key, question, exe }) = self.waiting.take_next()?;
        let sketch = (Code::of_kernel(question.in_file), None);
        let request = Request {
            places: self.places(&question, exe),
            question,
            avoided: self.avoided.names(now),
        };
        if let Some(worker) = &mut self.worker {
            worker.ask(&request);
        }
        self.asked = Some(Asked {
            key,
            group,
            since: now,
            due: now + self.patience,
            sketch,
        });
        None
    }

    /// Answers a question whose group has so many processes hang that it is not worth another.
    fn refuse_stuck(&mut self) -> Option<(K, Code)> {
        let Self {
            workers, waiting, ..
        } = self;
        let (_, Open { key, question, .. }) = waiting.take_first(|group| workers.hang(group))?;
        self.failures.refused += 1;
        let mut code = Code::of_kernel(question.in_file);
        code.lacks("looking at others of its cgroup has not come to an end yet");
        Some((key, code))
    }

    fn places(&self, question: &Question, exe: Option<String>) -> Vec<Place> {
        let Some(in_file) = question.in_file else {
            return vec![];
        };
        let known = self.files.place(&in_file.build_id).cloned();
        let exe = exe.map(|path| Place {
            path: path.into_bytes(),
            subject: question.subject,
        });
        known.into_iter().chain(exe).collect()
    }

    fn take(&mut self, reply: Reply) -> Option<(K, Code)> {
        match reply {
            Reply::Sketch { code, next } => {
                if let Some(asked) = &mut self.asked {
                    asked.sketch = (*code, Some(next));
                }
                None
            }
            Reply::Answer { code, learnt, ends } => {
                self.deaths = 0;
                let now = Instant::now();
                self.rests_until = now + self.rest;
                if let Some((build_id, place)) = learnt {
                    self.files.learn(build_id, place);
                }
                if ends {
                    self.end();
                }
                let asked = self.asked.take()?;
                let took = now.saturating_duration_since(asked.since);
                self.waiting.charge(now, asked.group, took);
                Some((asked.key, *code))
            }
        }
    }

    fn end(&mut self) {
        if let Some(worker) = self.worker.take() {
            let group = self.asked.as_ref().map(|asked| asked.group);
            self.workers.end(worker, group);
        }
    }

    /// Goes on without the process, and without the answer to what it was asked.
    fn lose(&mut self, why: &str) -> Option<(K, Code)> {
        self.end();
        let now = Instant::now();
        let asked = self.asked.take();
        let Some(asked_for) = &asked else {
            debug!("the process that looks at addresses ended without being asked anything");
            return None;
        };
        let group = asked_for.group;
        let took = now.saturating_duration_since(asked_for.since);
        let pause = self.pause(now);
        // The others wait for the pause, too.
        self.waiting.charge(now, group, took + pause);
        asked.map(|asked| {
            let (mut code, at) = asked.sketch;
            if asked.due <= now {
                self.failures.overdue += 1;
            } else {
                self.failures.died += 1;
            }
            if self.failures.overdue + self.failures.died == 1 {
                warn!(
                    at,
                    "{why}; it, and others of its kind, are shown without names"
                );
            }
            if let Some(at) = at {
                self.avoided.add(now, at);
            }
            code.lacks(why);
            (asked.key, code)
        })
    }

    fn pause(&mut self, now: Instant) -> Duration {
        let pause = match self.deaths {
            // The first one is replaced at once.
            0 => Duration::ZERO,
            deaths => (PAUSE * 2_u32.saturating_pow(deaths.min(16))).min(LONGEST_PAUSE),
        };
        self.pauses_until = now + pause;
        self.deaths += 1;
        pause
    }
}

async fn ring(alarm: Option<Instant>) {
    match alarm {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
