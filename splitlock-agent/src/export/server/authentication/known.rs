//! Credentials that were checked before.
//!
//! None is kept: only keyed hashes of them, with a key of this process's own.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::crypto::ring;

/// Wrong ones that are remembered: a scraper with an old password is to cost nothing.
const WRONG: usize = 64;
/// Users whose right ones are remembered; past them each request takes a check.
const RIGHT: usize = 1024;

/// What they are told apart by.
pub type Fingerprint = [u8; 32];

/// What is remembered.
pub struct Known {
    key: [u8; 64],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// One for each user.
    right: HashMap<String, Fingerprint>,
    wrong: VecDeque<Fingerprint>,
}

impl Known {
    /// Nothing.
    pub fn new() -> Self {
        let mut key = [0; 64];
        // It fails only where the kernel has no random numbers; then nothing is told by this key that
        // is not in this process's memory anyway.
        let _ = ring::default_provider().secure_random.fill(&mut key);
        Self {
            key,
            state: Mutex::default(),
        }
    }

    /// Of credentials with what they are checked against, so that it changes with the user's hash.
    pub fn digest(&self, name: &str, hash: &str, password: &[u8]) -> Fingerprint {
        let mut digest = Sha256::new_with_prefix(self.key);
        for part in [name.as_bytes(), hash.as_bytes(), password] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        // The key comes first and the lengths are in it; a second round lets nobody go on from it.
        let inner = digest.finalize();
        let mut outer = Sha256::new_with_prefix(self.key);
        outer.update(inner);
        outer.finalize().into()
    }

    /// Whether they were right, where that is known.
    pub fn verdict(&self, name: &str, digest: &Fingerprint) -> Option<bool> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.right.get(name) == Some(digest) {
            return Some(true);
        }
        state.wrong.contains(digest).then_some(false)
    }

    /// Remembers them.
    pub fn learn(&self, name: &str, digest: Fingerprint, is_right: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_right {
            state.wrong.truncate(WRONG - 1);
            state.wrong.push_front(digest);
        } else if state.right.len() < RIGHT || state.right.contains_key(name) {
            state.right.insert(name.to_owned(), digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_known_until_something_of_them_changes() {
        let known = Known::new();
        let digest = known.digest("me", "hash", b"secret");
        assert_eq!(known.verdict("me", &digest), None);
        known.learn("me", digest, true);
        assert_eq!(known.verdict("me", &digest), Some(true));
        for (name, hash, password) in [
            ("me", "hash", "other"),
            ("me", "another", "secret"),
            ("you", "hash", "secret"),
            ("mehash", "", "secret"),
            ("me", "hashs", "ecret"),
        ] {
            let other = known.digest(name, hash, password.as_bytes());
            assert_ne!(other, digest);
            assert_eq!(known.verdict(name, &other), None);
        }
        // Another process has another key.
        assert_ne!(Known::new().digest("me", "hash", b"secret"), digest);
    }

    #[test]
    fn a_crowd_of_wrong_ones_drives_no_right_one_out() {
        let known = Known::new();
        let right = known.digest("me", "hash", b"secret");
        known.learn("me", right, true);
        for n in 0..10 * WRONG {
            let wrong = known.digest("me", "hash", n.to_string().as_bytes());
            known.learn("me", wrong, false);
            assert_eq!(known.verdict("me", &wrong), Some(false));
        }
        assert_eq!(known.verdict("me", &right), Some(true));
        assert_eq!(known.state.lock().unwrap().wrong.len(), WRONG);
    }
}
