//! Events on their way to the event log: each waits until it is known who it was and what is there,
//! but not for long.

use std::{
    collections::{HashSet, VecDeque},
    future::pending,
    time::Duration,
};

use splitlock_common::{Event, Loss, record::Record};
use tokio::time::{Instant, sleep_until};

use super::Agent;
use crate::{
    code::turns::Group,
    export::event_log::{EventLog, Line},
    table::sites::SiteKey,
};

/// For an event's name and code; then its line says what is known.
const PATIENCE: Duration = Duration::from_secs(2);
/// Events that wait: 1.6 MB of them, which only a limit of thousands a second can bring about.
const WAITING: usize = 16_384;

/// What waits, and how many lines there may be.
#[derive(Debug)]
pub struct EventLines {
    log: EventLog,
    waiting: VecDeque<(Instant, Record)>,
    per_second: u32,
    /// When the present second began, and the lines in it.
    second: (Instant, u32),
    /// Who has a line in it.
    heard: HashSet<Group>,
    /// Since the last line.
    suppressed: u64,
}

impl EventLines {
    /// Writes to a log, so many lines in a second.
    pub fn new(log: EventLog, per_second: u32) -> Self {
        Self {
            log,
            waiting: VecDeque::new(),
            per_second,
            second: (Instant::now(), 0),
            heard: HashSet::new(),
            suppressed: 0,
        }
    }

    /// Waits until the first event has waited long enough; for ever where none does.
    pub async fn is_due(lines: &Option<Self>) {
        let first = lines.as_ref().and_then(|lines| lines.waiting.front());
        match first {
            Some((due, _)) => sleep_until(*due).await,
            None => pending().await,
        }
    }

    /// Whether there is room for one more. Beyond the limit there is for a cgroup that has no line yet
    /// in this second, so that one that traps in thousands of processes does not silence the others.
    fn admit(&mut self, now: Instant, group: Group) -> Result<(), Loss> {
        let (began, lines) = &mut self.second;
        if now.duration_since(*began) >= Duration::from_secs(1) {
            (*began, *lines) = (now, 0);
            self.heard.clear();
        }
        let most = self.per_second.saturating_add(self.per_second / 4);
        let is_new = matches!(group, Group::Cgroup(_)) && !self.heard.contains(&group);
        if *lines >= if is_new { most } else { self.per_second } {
            return Err(Loss::EventLogRateLimit);
        }
        if self.waiting.len() >= WAITING {
            return Err(Loss::EventLogBehind);
        }
        *lines += 1;
        self.heard.insert(group);
        Ok(())
    }
}

impl Agent {
    /// Takes an event for the event log, if there is one.
    pub(super) fn log_event(&mut self, record: Record) {
        let Some(lines) = &mut self.event_lines else {
            return;
        };
        let now = Instant::now();
        let group = Group::of(record.subject.into(), record.cgroup_id);
        match lines.admit(now, group) {
            Ok(()) => lines.waiting.push_back((now + PATIENCE, record)),
            Err(loss) => {
                lines.suppressed += 1;
                self.table.add_lost(loss, 1);
            }
        }
    }

    /// Writes the lines of events that have waited long enough, or for nothing more.
    pub(super) fn write_events(&mut self) {
        let Some(mut lines) = self.event_lines.take() else {
            return;
        };
        let now = Instant::now();
        while let Some((due, record)) = lines.waiting.front()
            && (*due <= now || self.is_told(record))
            && let Some((_, record)) = lines.waiting.pop_front()
        {
            let Some(line) = self.line(&record, lines.suppressed) else {
                continue;
            };
            if lines.log.write(line) {
                lines.suppressed = 0;
            } else {
                lines.suppressed += 1;
                self.table.add_lost(Loss::EventLogBehind, 1);
            }
        }
        self.table
            .add_lost(Loss::EventLogBehind, lines.log.take_failed());
        self.event_lines = Some(lines);
    }

    /// Whether all is known of an event that will be.
    fn is_told(&self, record: &Record) -> bool {
        if self.sites.is_open(site(record)) {
            return false;
        }
        let is_guest = Event::from_number(record.event).is_some_and(Event::is_guest);
        self.table.who(record.subject.into(), is_guest).is_some() || self.inquiries.is_idle()
    }

    fn line(&self, record: &Record, suppressed: u64) -> Option<Line> {
        let is_guest = Event::from_number(record.event)?.is_guest();
        let who = self.table.who(record.subject.into(), is_guest);
        let code = self.sites.code(site(record));
        let story = self.sites.tell(record)?;
        Some(Line::new(story, who, code.as_deref(), suppressed))
    }
}

fn site(record: &Record) -> SiteKey {
    SiteKey {
        subject: record.subject.into(),
        event: record.event,
        ip: record.ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::event_log::Form;

    #[test]
    fn there_are_so_many_lines_in_a_second() {
        let log = EventLog::start(Form::Json).unwrap();
        let mut lines = EventLines::new(log, 4);
        let now = Instant::now();
        let [loud, quiet, third] = [7, 8, 9].map(Group::Cgroup);
        for _ in 0..4 {
            assert_eq!(lines.admit(now, loud), Ok(()));
        }
        assert_eq!(lines.admit(now, loud), Err(Loss::EventLogRateLimit));
        // A quarter more, for who had none.
        assert_eq!(lines.admit(now, quiet), Ok(()));
        assert_eq!(lines.admit(now, quiet), Err(Loss::EventLogRateLimit));
        assert_eq!(lines.admit(now, third), Err(Loss::EventLogRateLimit));
        let later = now + Duration::from_secs(1);
        assert_eq!(lines.admit(later, loud), Ok(()));
    }
}
