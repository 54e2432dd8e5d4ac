//! One picture: a snapshot, and what changed since the one before it.
//!
//! Pure. A rate is told only where both counts are known to be of the same life of the agent: what
//! is not known is `None`, never a guess.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::answer::{Answer, Host, Named, Probe, Story, Subject, Text, Traps};
use crate::subjects::SubjectId;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A VM.
    Vm,
    /// A process.
    Process,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Vm, Self::Process];

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Vm => Self::Process,
            Self::Process => Self::Vm,
        }
    }

    /// Its place in a pair.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Sums of what a subject's row has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Split locks.
    pub split: u64,
    /// Bus locks.
    pub bus: u64,
    /// Nanoseconds that the kernel held it up.
    pub delay_ns: u64,
    /// Alignment checks of a process, or `#AC` that KVM handed to a guest.
    pub checks: u64,
    /// VM exits.
    pub exits: u64,
    /// Returns to the VMM.
    pub returns: u64,
}

impl Tally {
    fn of(kind: Kind, told: &Subject) -> Self {
        let [split, bus] = ["split_lock", "bus_lock"].map(|trap| {
            sum(told
                .traps
                .iter()
                .filter(|traps| &*traps.trap == trap)
                .map(|traps| traps.count))
        });
        Self {
            split,
            bus,
            delay_ns: told.delay_ns,
            checks: match kind {
                Kind::Vm => told.ac_injected,
                Kind::Process => told.alignment_checks,
            },
            exits: sum(told.exits.values().copied()),
            returns: sum(told.userspace_exits.values().copied()),
        }
    }

    /// Locks of both kinds.
    pub const fn locks(&self) -> u64 {
        self.split.saturating_add(self.bus)
    }
}

/// The same, per second; delay in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// Split locks.
    pub split: f64,
    /// Bus locks.
    pub bus: f64,
    /// Seconds that the kernel held it up.
    pub delay: f64,
    /// Alignment checks, or injected `#AC`.
    pub checks: f64,
    /// VM exits.
    pub exits: f64,
    /// Returns to the VMM.
    pub returns: f64,
    /// VM exits by reason, in the order of the reasons.
    pub by_reason: Vec<f64>,
    /// Returns likewise.
    pub returns_by_reason: Vec<f64>,
}

impl Rates {
    /// Locks of both kinds.
    pub fn locks(&self) -> f64 {
        self.split + self.bus
    }
}

/// One VM or process.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is.
    pub kind: Kind,
    /// As the agent told.
    pub told: Subject,
    /// Sums of it.
    pub tally: Tally,
    /// What changed; `None` where that is not known yet.
    pub rates: Option<Rates>,
    /// The most frequent reason of an exit, else of a return to the VMM.
    pub top_reason: Option<Text>,
    /// What a filter looks through: lower case.
    pub searched: String,
}

impl Row {
    fn new(kind: Kind, told: Subject, past: Past<'_>) -> Self {
        let tally = Tally::of(kind, &told);
        let rates = match past {
            Past::Unknown => None,
            Past::Known { row, seconds } => rates(&tally, &told, row, seconds),
        };
        let top_reason = top_reason(&told, rates.as_ref());
        let searched = format!(
            "{} {} {} {} {} {}",
            told.vm, told.id, told.comm, told.unit, told.container_id, told.pid
        )
        .to_lowercase();
        Self {
            kind,
            told,
            tally,
            rates,
            top_reason,
            searched,
        }
    }

    /// Who it is.
    pub fn key(&self) -> SubjectId {
        SubjectId {
            pid: self.told.pid,
            start_ticks: self.told.start_ticks,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        match self.kind {
            Kind::Vm => &self.told.vm,
            Kind::Process => &self.told.comm,
        }
    }

    /// Where most of its records are from: the function, else the address.
    pub fn site(&self) -> Option<&str> {
        let site = self.told.sites.first()?;
        let function = site.code.as_ref().and_then(|code| code.function.as_deref());
        Some(function.unwrap_or(&site.ip))
    }

    /// The container it is in, else its systemd unit.
    pub fn unit(&self) -> &str {
        if self.told.container_id.is_empty() {
            &self.told.unit
        } else {
            &self.told.container_id
        }
    }
}

/// What is known of a subject's counts at the picture before.
#[derive(Clone, Copy)]
enum Past<'a> {
    /// Nothing.
    Unknown,
    /// They were these, so many seconds ago; `None` for all 0.
    Known { row: Option<&'a Row>, seconds: f64 },
}

/// A count of the host with its rate.
#[derive(Clone, Debug)]
pub struct Total {
    /// What was counted.
    pub traps: Traps,
    /// Per second.
    pub rate: Option<f64>,
}

/// A loss with its rate.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Why.
    pub cause: Text,
    /// How many.
    pub count: u64,
    /// Per second.
    pub rate: Option<f64>,
}

/// All there is to show.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When it came, by this machine's clock that does not jump.
    pub at: Instant,
    /// When it was taken, by the agent's clock: Unix seconds.
    pub taken_at: f64,
    /// Seconds since the picture before, if rates were made of both.
    pub seconds: Option<f64>,
    /// Whether the agent began anew since the picture before.
    pub restarted: bool,
    /// What the host is.
    pub host: Host,
    /// The host's locks, all kinds.
    pub totals: Vec<Total>,
    /// Losses that there were.
    pub lost: Vec<Lost>,
    /// VMs and processes.
    pub rows: [Vec<Row>; 2],
    /// Locks of subjects past a limit, by kind.
    pub overflow: Named,
    /// The hooks.
    pub probes: Vec<Probe>,
    /// The newest events, newest first.
    pub events: Vec<Story>,
    /// Whether any VM has exits; else only returns to the VMM are counted here.
    pub counts_exits: bool,
    /// Which kinds of subjects all have a row.
    roomy: [bool; 2],
}

impl Picture {
    /// Of an answer that came `at`, and the picture before.
    pub fn new(answer: Answer, at: Instant, before: Option<&Self>) -> Self {
        let restarted = before.is_some_and(|before| went_back(before, &answer));
        let before = before.filter(|_| !restarted);
        let seconds = before.and_then(|before| seconds_between(before, &answer, at));
        let rate = |new: u64, old: u64| Some(new.checked_sub(old)? as f64 / seconds?);
        let totals = answer
            .host_traps
            .into_iter()
            .map(|traps| Total {
                rate: before.and_then(|before| rate(traps.count, before.total(&traps))),
                traps,
            })
            .collect();
        let lost = answer
            .lost
            .into_iter()
            .map(|(cause, count)| Lost {
                rate: before.and_then(|before| rate(count, before.lost(&cause))),
                cause,
                count,
            })
            .collect();
        let roomy = ["vm", "process"].map(|kind| {
            answer
                .tracked
                .get(&Text::new(kind))
                .is_some_and(|places| places.used < places.limit)
        });
        let rows = |kind: Kind, told: Vec<Subject>| {
            let past: HashMap<SubjectId, &Row> = before
                .map(|before| {
                    before
                        .rows(kind)
                        .iter()
                        .map(|row| (row.key(), row))
                        .collect()
                })
                .unwrap_or_default();
            // Who is new was counted from 0 on, unless it had lost its place to another before.
            let new_from_zero =
                before.is_some_and(|before| before.roomy[kind.index()]) && roomy[kind.index()];
            told.into_iter()
                .map(|told| {
                    let key = SubjectId {
                        pid: told.pid,
                        start_ticks: told.start_ticks,
                    };
                    let past = match (seconds, past.get(&key)) {
                        (Some(seconds), Some(row)) => Past::Known {
                            row: Some(row),
                            seconds,
                        },
                        (Some(seconds), None) if new_from_zero => {
                            Past::Known { row: None, seconds }
                        }
                        _ => Past::Unknown,
                    };
                    Row::new(kind, told, past)
                })
                .collect::<Vec<_>>()
        };
        let vms = rows(Kind::Vm, answer.vms);
        let processes = rows(Kind::Process, answer.processes);
        Self {
            at,
            taken_at: answer.taken_at,
            seconds,
            restarted,
            host: answer.host,
            totals,
            lost,
            counts_exits: vms.iter().any(|row| row.tally.exits > 0),
            rows: [vms, processes],
            overflow: answer.overflow_traps,
            probes: answer.probes,
            events: answer.recent,
            roomy,
        }
    }

    /// The first picture after a time without any. The agent may be another now whose counts are
    /// larger than this one's, so that nothing of the two belongs together.
    pub fn after_silence(&self, answer: Answer, at: Instant) -> Self {
        let restarted = went_back(self, &answer);
        Self {
            restarted,
            ..Self::new(answer, at, None)
        }
    }

    /// VMs, or processes.
    pub fn rows(&self, kind: Kind) -> &[Row] {
        &self.rows[kind.index()]
    }

    /// The row of a subject.
    pub fn find(&self, kind: Kind, key: SubjectId) -> Option<&Row> {
        self.rows(kind).iter().find(|row| row.key() == key)
    }

    fn total(&self, kind: &Traps) -> u64 {
        self.totals
            .iter()
            .find(|total| is_same(&total.traps, kind))
            .map_or(0, |total| total.traps.count)
    }

    fn lost(&self, cause: &Text) -> u64 {
        self.lost
            .iter()
            .find(|lost| lost.cause == *cause)
            .map_or(0, |lost| lost.count)
    }
}

fn is_same(one: &Traps, other: &Traps) -> bool {
    one.origin == other.origin && one.trap == other.trap && one.outcome == other.outcome
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// Whether any counter is less than before: then the agent began anew, and no two counts of the two
/// pictures belong together.
fn went_back(before: &Picture, answer: &Answer) -> bool {
    let is_less = |traps: &Traps| traps.count < before.total(traps);
    if answer.host_traps.iter().any(is_less) {
        return true;
    }
    if answer
        .lost
        .iter()
        .any(|(cause, count)| *count < before.lost(cause))
    {
        return true;
    }
    Kind::ALL.into_iter().any(|kind| {
        let told = match kind {
            Kind::Vm => &answer.vms,
            Kind::Process => &answer.processes,
        };
        let past: HashMap<SubjectId, &Row> = before
            .rows(kind)
            .iter()
            .map(|row| (row.key(), row))
            .collect();
        told.iter().any(|told| {
            let key = SubjectId {
                pid: told.pid,
                start_ticks: told.start_ticks,
            };
            past.get(&key).is_some_and(|row| {
                let (new, old) = (Tally::of(kind, told), row.tally);
                new.split < old.split
                    || new.bus < old.bus
                    || new.delay_ns < old.delay_ns
                    || new.checks < old.checks
                    || new.exits < old.exits
                    || new.returns < old.returns
            })
        })
    })
}

/// The agent's clock says when the ledgers were read, but it may be set meanwhile; this machine's
/// says only when the answer came.
fn seconds_between(before: &Picture, answer: &Answer, at: Instant) -> Option<f64> {
    let here = at.saturating_duration_since(before.at).as_secs_f64();
    let there = answer.taken_at - before.taken_at;
    let seconds = if (there - here).abs() <= (here * 0.2).max(0.5) {
        there
    } else {
        here
    };
    // The same snapshot twice, or next to it: too little for a rate.
    (seconds >= Duration::from_millis(10).as_secs_f64()).then_some(seconds)
}

fn rates(tally: &Tally, told: &Subject, past: Option<&Row>, seconds: f64) -> Option<Rates> {
    let old = past.map(|row| row.tally).unwrap_or_default();
    let rate = |new: u64, old: u64| Some(new.checked_sub(old)? as f64 / seconds);
    let by_reason = |new: &Named, old: Option<&Named>| {
        new.iter()
            .map(|(reason, count)| {
                let old = old.and_then(|old| old.get(reason)).copied();
                rate(*count, old.unwrap_or(0))
            })
            .collect::<Option<Vec<f64>>>()
    };
    Some(Rates {
        split: rate(tally.split, old.split)?,
        bus: rate(tally.bus, old.bus)?,
        delay: rate(tally.delay_ns, old.delay_ns)? / 1e9,
        checks: rate(tally.checks, old.checks)?,
        exits: rate(tally.exits, old.exits)?,
        returns: rate(tally.returns, old.returns)?,
        by_reason: by_reason(&told.exits, past.map(|row| &row.told.exits))?,
        returns_by_reason: by_reason(
            &told.userspace_exits,
            past.map(|row| &row.told.userspace_exits),
        )?,
    })
}

/// By rate now, or where there is none, by count.
fn top_reason(told: &Subject, rates: Option<&Rates>) -> Option<Text> {
    let (counts, rates) = if told.exits.is_empty() {
        (
            &told.userspace_exits,
            rates.map(|rates| &rates.returns_by_reason),
        )
    } else {
        (&told.exits, rates.map(|rates| &rates.by_reason))
    };
    counts
        .iter()
        .enumerate()
        .map(|(index, (reason, count))| {
            let rate = rates.and_then(|rates| rates.get(index)).copied();
            (rate.unwrap_or(0.0), *count, reason)
        })
        .max_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)))
        .filter(|(_, count, _)| *count > 0)
        .map(|(.., reason)| reason.clone())
}

#[cfg(test)]
mod tests;
