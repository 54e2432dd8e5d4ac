//! What the programs may cost, and which of them costs most. The kernel measures it
//! (`BPF_ENABLE_STATS`): a clock before and one behind each run, of which some 20 ns are in the figure.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use splitlock_common::Hook;

use super::cost::Cost;

/// Over which costs are averaged: longer than a burst, shorter than anybody takes to look.
pub const WINDOW: Duration = Duration::from_secs(5);

/// A share of one CPU's time, in percent: 200 is all of two CPUs.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// So much time in so much.
    fn of(part: Duration, whole: Duration) -> Self {
        Self(100.0 * part.as_secs_f64() / whole.as_secs_f64())
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
        match number {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(Self(number)),
            _ => Err("a number above 0, such as 5 or 0.5".to_owned()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", (self.0 * 1000.0).round() / 1000.0)
    }
}

/// Watches what the programs cost.
#[derive(Debug)]
pub struct Budget {
    limit: Percent,
    since: Instant,
    before: HashMap<Hook, u64>,
}

/// The programs cost more than they may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// Whose cost most.
    pub costliest: Hook,
    /// How much that was.
    pub share: Percent,
    /// What all of them cost.
    pub all: Percent,
    /// What they may.
    pub limit: Percent,
}

impl Budget {
    /// Begins to watch.
    pub fn new(limit: Percent, now: Instant, costs: impl Iterator<Item = (Hook, Cost)>) -> Self {
        Self {
            limit,
            since: now,
            before: nanoseconds(costs),
        }
    }

    /// When the window ends.
    pub fn due(&self) -> Instant {
        self.since + WINDOW
    }

    /// Ends the window and begins the next: whether there was too much in it. What a hook cost that
    /// has been taken off since counts for the window that it was taken off in.
    pub fn judge(
        &mut self,
        now: Instant,
        costs: impl Iterator<Item = (Hook, Cost)>,
    ) -> Option<Excess> {
        let time = now.saturating_duration_since(self.since);
        let costs = nanoseconds(costs);
        let spent: Vec<(Hook, Duration)> = costs
            .iter()
            .map(|(hook, cost)| {
                let before = self.before.get(hook).copied().unwrap_or(0);
                (*hook, Duration::from_nanos(cost.saturating_sub(before)))
            })
            .collect();
        self.since = now;
        self.before = costs;
        if time.is_zero() {
            return None;
        }
        let all = Percent::of(spent.iter().map(|(_, time)| *time).sum(), time);
        let (costliest, most) = spent.into_iter().max_by_key(|(_, time)| *time)?;
        (all > self.limit).then_some(Excess {
            costliest,
            share: Percent::of(most, time),
            all,
            limit: self.limit,
        })
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            costliest: _,
            share,
            all,
            limit,
        } = self;
        write!(
            f,
            "its programs took {share} of a CPU, and all together {all}, where --max-overhead allows {limit}"
        )
    }
}

fn nanoseconds(costs: impl Iterator<Item = (Hook, Cost)>) -> HashMap<Hook, u64> {
    costs.map(|(hook, cost)| (hook, cost.run_ns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(exit_ms: u64, signal_ms: u64) -> impl Iterator<Item = (Hook, Cost)> {
        let cost = |ms: u64| Cost {
            run_ns: ms * 1_000_000,
            ..Cost::default()
        };
        [
            (Hook::KvmExit, cost(exit_ms)),
            (Hook::SignalGenerate, cost(signal_ms)),
        ]
        .into_iter()
    }

    #[test]
    fn what_is_too_much_is_so_within_one_window() {
        let start = Instant::now();
        let limit: Percent = "5".parse().unwrap();
        let mut budget = Budget::new(limit, start, costs(1000, 1000));
        assert_eq!(budget.due(), start + WINDOW);
        // 250 ms in 5 s are 5 %.
        assert_eq!(budget.judge(start + WINDOW, costs(1200, 1050)), None);
        let excess = budget.judge(start + 2 * WINDOW, costs(1400, 1101)).unwrap();
        assert_eq!(excess.costliest, Hook::KvmExit);
        assert_eq!(
            excess.to_string(),
            "its programs took 4 % of a CPU, and all together 5.02 %, where --max-overhead allows 5 %"
        );
        // That it was too much is not held against the next window.
        assert_eq!(budget.judge(start + 3 * WINDOW, costs(1400, 1101)), None);
    }

    #[test]
    fn a_hook_that_is_gone_costs_nothing_more() {
        let start = Instant::now();
        let mut budget = Budget::new("1".parse().unwrap(), start, costs(0, 0));
        let excess = budget.judge(start + WINDOW, costs(3000, 200)).unwrap();
        assert_eq!(excess.costliest, Hook::KvmExit);
        let left = costs(0, 400).filter(|(hook, _)| *hook == Hook::SignalGenerate);
        let excess = budget.judge(start + 2 * WINDOW, left).unwrap();
        assert_eq!(excess.costliest, Hook::SignalGenerate);
    }

    #[test]
    fn shares_are_numbers_above_0() {
        for (text, shown) in [("5", "5 %"), ("0.5", "0.5 %"), ("150%", "150 %")] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), shown);
        }
        for text in ["", "0", "-1", "nan", "inf", "five", "%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn fuzz_percent() {
        bolero::check!(name = "percent").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            if let Ok(Percent(number)) = text.parse::<Percent>() {
                assert!(number.is_finite() && number > 0.0);
                assert_eq!(format!("{number}%").parse(), Ok(Percent(number)));
            }
        });
    }
}
