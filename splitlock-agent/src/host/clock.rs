//! Boot time, the clock of everything that the kernel side tells.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in one tick of `/proc`'s times: USER_HZ is 100 on x86.
pub const TICK_NS: u64 = 10_000_000;

/// Nanoseconds since boot, suspend included.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The Unix time of a boot time, in seconds with milliseconds: the two clocks cannot be read at
/// one instant, so finer digits would change from one reading to the next.
pub fn unix_seconds(boot_time_ns: u64) -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_nanos() as i128;
    let unix_ns = now - i128::from(boot_ns()) + i128::from(boot_time_ns);
    (unix_ns as f64 / 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_now() {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        assert!((unix_seconds(boot_ns()) - unix).abs() < 1.0);
        assert!((unix_seconds(boot_ns() - 60_000_000_000) - unix + 60.0).abs() < 1.0);
    }
}
