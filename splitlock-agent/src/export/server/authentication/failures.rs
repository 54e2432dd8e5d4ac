//! How often each client was wrong lately.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::super::peer::Peer;

/// Wrong credentials that a client may send at once.
const BURST: u32 = 10;
/// Until it may send one more. It is also how long it stays behind those who were never wrong.
const INTERVAL: Duration = Duration::from_secs(30);
/// Clients that are remembered.
const CLIENTS: usize = 1024;

/// By client.
#[derive(Default)]
pub struct Failures(HashMap<Peer, Failed>);

struct Failed {
    count: u32,
    /// When the last one that counts was, or went out of the count.
    since: Instant,
}

impl Failed {
    fn forget(&mut self, now: Instant) {
        let gone = now.duration_since(self.since).as_millis() / INTERVAL.as_millis();
        let gone = u32::try_from(gone).unwrap_or(u32::MAX).min(self.count);
        self.count -= gone;
        self.since += INTERVAL * gone;
    }
}

impl Failures {
    /// How many of a client's count.
    pub fn of(&mut self, peer: Peer, now: Instant) -> u32 {
        match self.0.get_mut(&peer) {
            Some(failed) => {
                failed.forget(now);
                failed.count
            }
            None => 0,
        }
    }

    /// Whether a client has to wait before another is checked.
    pub fn are_too_many(&mut self, peer: Peer, now: Instant) -> bool {
        self.of(peer, now) >= BURST
    }

    /// Counts one more; gives whether the client has to wait from now on.
    pub fn add(&mut self, peer: Peer, now: Instant) -> bool {
        if self.0.len() >= CLIENTS && !self.0.contains_key(&peer) {
            self.make_room(now);
        }
        let failed = self.0.entry(peer).or_insert(Failed {
            count: 0,
            since: now,
        });
        failed.forget(now);
        if failed.count == 0 {
            failed.since = now;
        }
        failed.count = (failed.count + 1).min(BURST);
        failed.count == BURST
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, failed| {
            failed.forget(now);
            failed.count > 0
        });
        if self.0.len() < CLIENTS {
            return;
        }
        // Whoever was wrong least.
        let least = self
            .0
            .iter()
            .min_by_key(|(_, failed)| (failed.count, failed.since));
        if let Some(peer) = least.map(|(peer, _)| *peer) {
            self.0.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Peer {
        Peer::User(Some(number))
    }

    #[test]
    fn a_guesser_waits_and_nobody_else_does() {
        let mut failures = Failures::default();
        let start = Instant::now();
        for n in 1..=BURST {
            assert!(!failures.are_too_many(peer(1), start));
            assert_eq!(failures.add(peer(1), start), n == BURST);
        }
        assert!(failures.are_too_many(peer(1), start));
        assert!(!failures.are_too_many(peer(2), start));
        assert!(!failures.are_too_many(peer(1), start + INTERVAL));
        assert!(failures.add(peer(1), start + INTERVAL));
        assert!(failures.are_too_many(peer(1), start + INTERVAL));
        assert_eq!(failures.of(peer(1), start + INTERVAL * 100), 0);
    }

    #[test]
    fn a_crowd_of_clients_makes_nobody_who_was_wrong_often_forgotten() {
        let mut failures = Failures::default();
        let start = Instant::now();
        for _ in 0..BURST {
            failures.add(peer(0), start);
        }
        for n in 1..5 * CLIENTS as u32 {
            failures.add(peer(n), start);
        }
        assert_eq!(failures.0.len(), CLIENTS);
        assert!(failures.are_too_many(peer(0), start));
    }
}
