//! Whose question is next: that of the group whose questions took the least time so far, so that
//! nobody's files, however many and however slow, hold up what others did.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::subjects::SubjectId;

/// What a group has taken is forgotten after this time without more.
const MEMORY: Duration = Duration::from_secs(600);
/// Groups whose time is known, at some 50 bytes each.
const GROUPS: usize = 1024;

/// Number of the v2 hierarchy's root, which is that of all processes where only v1 is in use.
const ROOT: u64 = 1;

/// A question's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// All of a cgroup: whoever starts many processes has them there.
    Cgroup(u64),
    /// A process that is in none.
    Process(SubjectId),
}

impl Group {
    /// Of a process in this cgroup.
    pub const fn of(subject: SubjectId, cgroup_id: u64) -> Self {
        if cgroup_id > ROOT {
            Self::Cgroup(cgroup_id)
        } else {
            Self::Process(subject)
        }
    }
}

/// Questions that wait, and what each group has taken.
#[derive(Debug)]
pub struct Turns<T> {
    /// In the order in which they came.
    waiting: Vec<(Group, T)>,
    /// How many of each group wait. Kept, not counted anew: a crowd brings thousands of questions.
    counts: HashMap<Group, usize>,
    limit: usize,
    taken: HashMap<Group, (Duration, Instant)>,
}

impl<T> Turns<T> {
    /// For so many questions.
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: vec![],
            counts: HashMap::new(),
            limit,
            taken: HashMap::new(),
        }
    }

    /// How many wait.
    pub const fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets one wait. Where there is no room, the newest of the group with most of them goes, and is
    /// given back, be it this one.
    pub fn add(&mut self, group: Group, question: T) -> Option<T> {
        self.waiting.push((group, question));
        *self.counts.entry(group).or_default() += 1;
        if self.waiting.len() <= self.limit {
            return None;
        }
        let most = self.counts.values().copied().max()?;
        let newest = self
            .waiting
            .iter()
            .rposition(|(group, _)| self.counts.get(group) == Some(&most))?;
        Some(self.take(newest).1)
    }

    fn take(&mut self, at: usize) -> (Group, T) {
        let (group, question) = self.waiting.remove(at);
        if let Some(count) = self.counts.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group);
            }
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
            self.counts.shrink_to_fit();
        }
        (group, question)
    }

    /// Takes the next one out.
    pub fn take_next(&mut self) -> Option<(Group, T)> {
        let taken = |group: &Group| {
            self.taken
                .get(group)
                .map_or(Duration::ZERO, |(time, _)| *time)
        };
        // The first among equals.
        let next = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(_, (group, _))| taken(group))
            .map(|(at, _)| at)?;
        Some(self.take(next))
    }

    /// Takes the first one out whose group is like that.
    pub fn take_first(&mut self, is_it: impl Fn(Group) -> bool) -> Option<(Group, T)> {
        let at = self.waiting.iter().position(|(group, _)| is_it(*group))?;
        Some(self.take(at))
    }

    /// Notes that a question of this group took some time.
    pub fn charge(&mut self, now: Instant, group: Group, time: Duration) {
        self.taken
            .retain(|_, (_, last)| now.saturating_duration_since(*last) < MEMORY);
        if self.taken.len() >= GROUPS && !self.taken.contains_key(&group) {
            // Who has taken least loses least by being taken for new.
            let least = self.taken.iter().min_by_key(|(_, (time, _))| *time);
            if let Some(least) = least.map(|(group, _)| *group) {
                self.taken.remove(&least);
            }
        }
        let (sum, last) = self.taken.entry(group).or_insert((Duration::ZERO, now));
        *sum += time;
        *last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn group(number: u64) -> Group {
        Group::Cgroup(number)
    }

    #[test]
    fn who_is_in_no_cgroup_is_alone() {
        let subject = |pid| SubjectId {
            pid,
            start_ticks: 1,
        };
        assert_eq!(Group::of(subject(1), 7), Group::of(subject(2), 7));
        for none in [0, ROOT] {
            assert_ne!(Group::of(subject(1), none), Group::of(subject(2), none));
        }
    }

    fn drain(turns: &mut Turns<u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.take_next().map(|(_, question)| question)).collect()
    }

    #[test]
    fn who_took_least_is_next_and_else_who_came_first() {
        let now = Instant::now();
        let mut turns = Turns::new(10);
        for (of, question) in [(1, 10), (1, 11), (2, 20), (1, 12), (2, 21)] {
            assert_eq!(turns.add(group(of), question), None);
        }
        assert_eq!(turns.take_next(), Some((group(1), 10)));
        turns.charge(now, group(1), SECOND);
        assert_eq!(drain(&mut turns), [20, 21, 11, 12]);
        // As if it had never been, much later.
        turns.charge(now + MEMORY, group(3), SECOND);
        turns.add(group(1), 13);
        turns.add(group(2), 22);
        assert_eq!(drain(&mut turns), [13, 22]);
    }

    #[test]
    fn where_there_is_no_room_the_greediest_goes_without() {
        let mut turns = Turns::new(4);
        for question in 0..4 {
            assert_eq!(turns.add(group(1), question), None);
        }
        assert_eq!(turns.add(group(1), 4), Some(4));
        assert_eq!(turns.add(group(2), 20), Some(3));
        assert_eq!(turns.add(group(2), 21), Some(2));
        assert_eq!(turns.len(), 4);
        // Both have two: who comes then is the third.
        assert_eq!(turns.add(group(2), 22), Some(22));
        assert_eq!(turns.take_first(|of| of == group(2)), Some((group(2), 20)));
        assert_eq!(turns.take_first(|of| of == group(3)), None);
        assert_eq!(drain(&mut turns), [0, 1, 21]);
        assert!(turns.is_empty());
    }

    #[test]
    fn groups_are_bounded_and_the_greediest_stay_known() {
        let now = Instant::now();
        let mut turns: Turns<u32> = Turns::new(4);
        turns.charge(now, group(0), 10 * SECOND);
        for number in 1..=2 * GROUPS as u64 {
            turns.charge(now, group(number), SECOND);
        }
        assert_eq!(turns.taken.len(), GROUPS);
        assert!(turns.taken.contains_key(&group(0)));
    }
}
