//! What rates were, for sparklines.

use std::collections::{HashMap, VecDeque};

use super::picture::{Kind, Picture, Row};
use crate::subjects::SubjectId;

/// Samples that are kept.
pub const SAMPLES: usize = 120;

/// One line of the past.
#[derive(Clone, Debug, Default)]
struct Samples(VecDeque<f32>);

impl Samples {
    fn push(&mut self, value: f32) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    fn is_quiet(&self) -> bool {
        self.0.iter().all(|value| *value == 0.0)
    }
}

/// What is kept of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Split and bus locks.
    Locks,
    /// Alignment checks, or injected `#AC`.
    Checks,
    /// VM exits, or where none are counted, returns to the VMM.
    Exits,
}

/// The past of all subjects that were not quiet all the time.
#[derive(Clone, Debug, Default)]
pub struct History {
    subjects: HashMap<(Kind, SubjectId, Measure), Samples>,
    host: Samples,
}

impl History {
    /// Adds what a picture tells. One without rates adds nothing.
    pub fn add(&mut self, picture: &Picture) {
        if picture.restarted {
            *self = Self::default();
        }
        if picture.seconds.is_none() {
            return;
        }
        let host: f64 = picture.totals.iter().filter_map(|total| total.rate).sum();
        self.host.push(host as f32);
        let mut past = std::mem::take(&mut self.subjects);
        for row in picture.rows.iter().flatten() {
            for measure in [Measure::Locks, Measure::Checks, Measure::Exits] {
                let value = sample(picture, row, measure);
                let key = (row.kind, row.key(), measure);
                let samples = match past.remove(&key) {
                    Some(mut samples) => {
                        samples.push(value);
                        samples
                    }
                    None if value > 0.0 => Samples(VecDeque::from([value])),
                    None => continue,
                };
                if !samples.is_quiet() {
                    self.subjects.insert(key, samples);
                }
            }
        }
        // Whoever was not in the picture is forgotten.
    }

    /// The newest samples of a subject, oldest first; what came before its first is 0.
    pub fn of(&self, kind: Kind, key: SubjectId, measure: Measure, most: usize) -> Vec<f32> {
        let looks = self.host.0.len().min(most);
        let mut line = vec![0.0; looks];
        if let Some(samples) = self.subjects.get(&(kind, key, measure)) {
            for (place, value) in line.iter_mut().rev().zip(samples.0.iter().rev()) {
                *place = *value;
            }
        }
        line
    }

    /// The host's locks.
    pub fn host(&self, most: usize) -> Vec<f32> {
        let skipped = self.host.0.len().saturating_sub(most);
        self.host.0.iter().skip(skipped).copied().collect()
    }
}

fn sample(picture: &Picture, row: &Row, measure: Measure) -> f32 {
    let value = row.rates.as_ref().map_or(0.0, |rates| match measure {
        Measure::Locks => rates.locks(),
        Measure::Checks => rates.checks,
        Measure::Exits if picture.counts_exits => rates.exits,
        Measure::Exits => rates.returns,
    });
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::{answer, pictures, process, vm};

    const KEY: SubjectId = SubjectId {
        pid: 1,
        start_ticks: 100,
    };

    fn line(history: &History, most: usize) -> Vec<f32> {
        history.of(Kind::Vm, KEY, Measure::Locks, most)
    }

    fn told(locks: &[u64]) -> History {
        let answers = locks.iter().enumerate().map(|(second, locks)| {
            answer(
                second as f64,
                &[vm(1, "a", *locks, 0)],
                &[process(2, "b", 0)],
            )
        });
        let mut history = History::default();
        for picture in pictures(answers) {
            history.add(&picture);
        }
        history
    }

    #[test]
    fn the_newest_come_last_and_what_was_before_the_first_is_zero() {
        let history = told(&[5, 5, 5, 7, 7, 10]);
        assert_eq!(line(&history, 9), [0.0, 0.0, 2.0, 0.0, 3.0]);
        assert_eq!(line(&history, 2), [0.0, 3.0]);
        assert_eq!(history.host(2), [10.0, 10.0]);
    }

    #[test]
    fn who_is_quiet_takes_no_room() {
        assert!(told(&[5; 10]).subjects.is_empty());
        let mut counts = vec![0, 1];
        counts.resize(SAMPLES + 1, 1);
        assert_eq!(told(&counts).subjects.len(), 1);
        // Its only second has left.
        counts.push(1);
        assert!(told(&counts).subjects.is_empty());
    }

    #[test]
    fn a_restart_begins_anew() {
        assert_eq!(line(&told(&[0, 9, 2, 4]), 5), [2.0]);
    }
}
