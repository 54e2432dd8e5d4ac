//! The rate of requests that the web configuration allows, for all clients together.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::export::web_config::Rate;

/// A token bucket. It is full at first.
#[derive(Default)]
pub struct Bucket(Mutex<Option<Level>>);

struct Level {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Whether there may be one more request now.
    pub fn take(&self, rate: Rate, now: Instant) -> bool {
        let mut level = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = f64::from(rate.burst);
        let level = level.get_or_insert(Level {
            tokens: burst,
            at: now,
        });
        let gained = now.duration_since(level.at).as_secs_f64() / rate.interval.as_secs_f64();
        level.tokens = (level.tokens + gained).min(burst);
        level.at = now;
        if level.tokens < 1.0 {
            return false;
        }
        level.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_one_by_one() {
        let rate = Rate {
            interval: Duration::from_secs(2),
            burst: 3,
        };
        let bucket = Bucket::default();
        let start = Instant::now();
        let taken = |seconds| bucket.take(rate, start + Duration::from_secs(seconds));
        assert!((0..3).all(|_| taken(0)));
        assert!(!taken(0) && !taken(1));
        assert!(taken(2) && !taken(3) && taken(4));
        assert!((0..3).all(|_| taken(100)) && !taken(100));
    }
}
