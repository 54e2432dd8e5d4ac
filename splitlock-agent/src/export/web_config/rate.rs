//! How many requests there may be.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::file::RateLimit;

/// A token bucket's measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Until there is one more.
    pub interval: Duration,
    /// The most at once.
    pub burst: u32,
}

impl Rate {
    /// Reads them; nothing for no limit.
    pub fn new(limit: &RateLimit) -> Result<Option<Self>> {
        let interval = duration(&limit.interval)?;
        if interval.is_zero() {
            return Ok(None);
        }
        ensure!(
            limit.burst > 0,
            "burst: without a burst of at least 1 no request is ever answered"
        );
        Ok(Some(Self {
            interval,
            burst: limit.burst,
        }))
    }
}

/// A length of time as Go writes it, in one unit.
fn duration(text: &str) -> Result<Duration> {
    const UNITS: [(&str, f64); 6] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    UNITS
        .iter()
        .find_map(|(unit, seconds)| {
            let number = text.strip_suffix(unit)?;
            let is_number = number.chars().all(|c| c.is_ascii_digit() || c == '.');
            let value = is_number.then(|| number.parse::<f64>().ok())??;
            Duration::try_from_secs_f64(value * seconds).ok()
        })
        .ok_or_else(|| anyhow!("interval: a number and one of ns, us, ms, s, m, h, such as 500ms"))
}
