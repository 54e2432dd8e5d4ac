//! The thread that looks at the agent, again and again, so that the screen need not wait for it.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{answer::Detail, picture::Picture, source::Source, terminal::Event};
use crate::subjects::SubjectId;

/// Of so many parts of the time one is for looking, at most.
const SHARE: u32 = 10;

/// Of whom there should be more than the snapshot has, from now on.
pub type Wanted = Option<SubjectId>;

/// Starts it, with the picture that there is.
///
/// # Errors
/// The kernel has no room for a thread.
pub fn start(
    source: Source,
    interval: Duration,
    first: Arc<Picture>,
    events: Sender<Event>,
) -> Result<Sender<Wanted>> {
    let (wishes, wanted) = mpsc::channel();
    let looks = Looks {
        source,
        interval,
        before: first,
        has_failed: false,
        events,
        wanted: None,
    };
    thread::Builder::new()
        .name("looks".to_owned())
        .spawn(move || looks.go_on(&wanted))
        .context("starting a thread")?;
    Ok(wishes)
}

struct Looks {
    source: Source,
    interval: Duration,
    before: Arc<Picture>,
    /// Whether there was no answer to the last look.
    has_failed: bool,
    events: Sender<Event>,
    wanted: Wanted,
}

impl Looks {
    /// Until the screen is gone.
    fn go_on(mut self, wishes: &Receiver<Wanted>) {
        let mut next = self.before.at + self.interval;
        loop {
            match wishes.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(wanted) => {
                    self.wanted = wanted;
                    if self.look_closer().is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let start = Instant::now();
                    if self.look(start).is_err() || self.look_closer().is_err() {
                        return;
                    }
                    next = start + pace(self.interval, start.elapsed());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self, start: Instant) -> Result<(), mpsc::SendError<Event>> {
        let event = match self.source.snapshot() {
            Ok(answer) => {
                let now = Instant::now();
                self.before = Arc::new(if self.has_failed {
                    self.before.after_silence(answer, now)
                } else {
                    Picture::new(answer, now, Some(&self.before))
                });
                self.has_failed = false;
                Event::Picture {
                    picture: Arc::clone(&self.before),
                    pace: pace(self.interval, start.elapsed()),
                }
            }
            Err(why) => {
                self.has_failed = true;
                Event::Failure(why)
            }
        };
        self.events.send(event)
    }

    /// Silent where the agent does not answer: the next look tells.
    fn look_closer(&self) -> Result<(), mpsc::SendError<Event>> {
        let Some(key) = self.wanted else {
            return Ok(());
        };
        let detail: Option<Detail> = match self.source.detail(key) {
            Ok(detail) => detail,
            Err(_) => return Ok(()),
        };
        self.events.send(Event::Detail(key, detail.map(Box::new)))
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        // A screen without news would not end by itself.
        if thread::panicking() {
            let _ = self.events.send(Event::Broken(
                "the thread that looks at the agent".to_owned(),
            ));
        }
    }
}

/// Time from one look to the next, if one takes so long.
fn pace(interval: Duration, cost: Duration) -> Duration {
    interval.max(cost * SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_take_long_are_fewer() {
        let second = Duration::from_secs(1);
        assert_eq!(pace(second, Duration::from_millis(99)), second);
        assert_eq!(pace(second, Duration::from_millis(300)), 3 * second);
    }
}
