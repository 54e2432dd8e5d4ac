//! What the agent remembers for the processes that look at files, which come and go.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::wire::Place;

/// Files whose place is remembered, at some 200 bytes each.
const FILES: usize = 1024;
/// Bytes of a path that is remembered.
const PATH_LIMIT: usize = 1024;
/// What is avoided at a time.
const AVOIDED: usize = 64;
/// For how long: whatever it was may be better then.
const AVOIDED_FOR: Duration = Duration::from_secs(600);

/// Where files with a build id were seen.
#[derive(Debug, Default)]
pub struct Files {
    places: HashMap<[u8; 20], Place>,
    /// The order in which they were first seen.
    order: VecDeque<[u8; 20]>,
}

impl Files {
    /// Where one was seen last.
    pub fn place(&self, build_id: &[u8; 20]) -> Option<&Place> {
        self.places.get(build_id)
    }

    /// Remembers one; the one that was met first makes room.
    pub fn learn(&mut self, build_id: [u8; 20], place: Place) {
        if place.path.len() > PATH_LIMIT {
            return;
        }
        if self.places.insert(build_id, place).is_none() {
            self.order.push_back(build_id);
        }
        if self.order.len() > FILES
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
    }
}

/// What is not looked at for a while.
#[derive(Debug, Default)]
pub struct Avoided(VecDeque<(Instant, String)>);

impl Avoided {
    /// Avoids something.
    pub fn add(&mut self, now: Instant, name: String) {
        self.0.retain(|(_, other)| *other != name);
        self.0.push_back((now, name));
        if self.0.len() > AVOIDED {
            self.0.pop_front();
        }
    }

    /// What is avoided now.
    pub fn names(&mut self, now: Instant) -> Vec<String> {
        self.0
            .retain(|(since, _)| now.saturating_duration_since(*since) < AVOIDED_FOR);
        self.0.iter().map(|(_, name)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::SubjectId;

    fn place(path: &[u8]) -> Place {
        Place {
            path: path.to_vec(),
            subject: SubjectId {
                pid: 1,
                start_ticks: 2,
            },
        }
    }

    fn id(number: usize) -> [u8; 20] {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&number.to_le_bytes());
        id
    }

    #[test]
    fn files_are_bounded() {
        let mut files = Files::default();
        for number in 0..FILES {
            files.learn(id(number), place(b"/a"));
        }
        files.learn(id(0), place(b"/b"));
        assert_eq!(files.place(&id(0)), Some(&place(b"/b")));
        files.learn(id(FILES), place(b"/c"));
        assert_eq!(files.place(&id(0)), None);
        assert_eq!(files.place(&id(1)), Some(&place(b"/a")));
        files.learn(id(1), place(&[b'a'; PATH_LIMIT + 1]));
        assert_eq!(files.place(&id(1)), Some(&place(b"/a")));
        assert_eq!((files.places.len(), files.order.len()), (FILES, FILES));
    }

    #[test]
    fn what_is_avoided_is_so_for_a_while() {
        let mut avoided = Avoided::default();
        let start = Instant::now();
        avoided.add(start, "a".to_owned());
        avoided.add(start, "a".to_owned());
        assert_eq!(avoided.names(start), ["a"]);
        for number in 0..AVOIDED {
            avoided.add(start + Duration::from_secs(1), number.to_string());
        }
        assert_eq!(avoided.names(start).len(), AVOIDED);
        assert!(!avoided.names(start).contains(&"a".to_owned()));
        assert!(avoided.names(start + Duration::from_secs(601)).is_empty());
    }
}
