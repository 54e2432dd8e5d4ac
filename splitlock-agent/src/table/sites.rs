//! Where the traps are: per subject its instruction addresses, by the records that told of them, and
//! its newest records. Bounded, and no count: records are limited per subject and second.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use splitlock_common::{
    Event,
    record::{Record, SAW_AT, SAW_BEFORE, SAW_REGISTERS, Sight},
};

use super::{
    snapshot::{Site, Story},
    stories,
};
use crate::{
    code::{Code, InFile, Question, Registers, turns::Group},
    host::clock::unix_seconds,
    intake::records::Told,
    subjects::SubjectId,
};

/// Subjects whose sites are kept. A new one takes the place of one of the cgroup that has most of
/// them: a crowd's processes make room for each other, not others for them.
const SUBJECTS: usize = 256;
/// Sites of one subject. A new one takes the place of that with fewest records.
const SITES: usize = 16;
/// Sites that a row of the snapshot shows.
pub const SHOWN: usize = 8;
/// Records of one subject.
const RECENT: usize = 16;
/// Questions that one subject may raise at once: it can trap at a new address each time.
const QUESTIONS: u32 = 32;
/// A further one after that.
const QUESTION_NS: u64 = 10_000_000_000;

/// Which site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SiteKey {
    /// Whose.
    pub subject: SubjectId,
    /// Number of the event.
    pub event: u32,
    /// Address of the instruction.
    pub ip: u64,
}

/// The sites of all subjects.
#[derive(Debug)]
pub struct Sites {
    subjects: HashMap<SubjectId, Places>,
    /// How many of them each group has.
    members: HashMap<Group, usize>,
    /// Where `pt_regs` has the general registers.
    registers: Option<[u32; 16]>,
}

/// Those of one subject.
#[derive(Debug)]
struct Places {
    group: Group,
    /// All records.
    records: u64,
    sites: Vec<Known>,
    /// Records of sites that found no room.
    others: u64,
    recent: VecDeque<Record>,
    /// Time of its last record.
    heard_ns: u64,
    asked: u32,
    asked_ns: u64,
}

#[derive(Debug)]
struct Known {
    event: Event,
    ip: u64,
    records: u64,
    last_ns: u64,
    is_asked: bool,
    code: Option<Arc<Code>>,
}

impl Sites {
    /// None yet. `registers` are the offsets of the general registers in `pt_regs`.
    pub fn new(registers: Option<[u32; 16]>) -> Self {
        Self {
            subjects: HashMap::new(),
            members: HashMap::new(),
            registers,
        }
    }

    /// Takes a record in. Gives a question if it is not known what is at the address, and the
    /// subject has not raised too many.
    pub fn add(&mut self, told: &Told) -> Option<(SiteKey, Question)> {
        let record = &told.record;
        let event = Event::from_number(record.event)?;
        let subject = SubjectId::from(record.subject);
        self.make_room(subject);
        let group = Group::of(subject, record.cgroup_id);
        let places = self.subjects.entry(subject).or_insert_with(|| {
            *self.members.entry(group).or_default() += 1;
            Places::of(group)
        });
        places.records += 1;
        places.heard_ns = record.time_ns;
        if places.recent.len() == RECENT {
            places.recent.pop_back();
        }
        places.recent.push_front(*record);
        if record.ip == 0 {
            return None;
        }
        let site = places.site(event, record.ip);
        site.records += 1;
        site.last_ns = record.time_ns;
        let wants = !event.is_guest() && !site.is_asked;
        if !wants || !places.may_ask(record.time_ns) {
            return None;
        }
        places.site(event, record.ip).is_asked = true;
        let key = SiteKey {
            subject,
            event: record.event,
            ip: record.ip,
        };
        Some((key, question(subject, event, told, self.registers)))
    }

    fn make_room(&mut self, newcomer: SubjectId) {
        if self.subjects.len() < SUBJECTS || self.subjects.contains_key(&newcomer) {
            return;
        }
        let most = self.members.values().copied().max().unwrap_or(0);
        let crowds: Vec<Group> = self
            .members
            .iter()
            .filter(|(_, count)| **count == most)
            .map(|(group, _)| *group)
            .collect();
        // Of such a cgroup the one with fewest records; of those, who was not heard of for longest.
        let quietest = self
            .subjects
            .iter()
            .filter(|(_, places)| {
                crowds.len() == self.members.len() || crowds.contains(&places.group)
            })
            .min_by_key(|(_, places)| (places.records, places.heard_ns))
            .map(|(id, _)| *id);
        if let Some(places) = quietest.and_then(|id| self.subjects.remove(&id)) {
            self.leave(places.group);
        }
    }

    fn leave(&mut self, group: Group) {
        if let Some(count) = self.members.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.members.remove(&group);
            }
        }
    }

    /// Forgets the subjects that nobody knows any more.
    pub fn retain(&mut self, is_known: impl Fn(SubjectId) -> bool) {
        let gone: Vec<SubjectId> = self
            .subjects
            .keys()
            .copied()
            .filter(|id| !is_known(*id))
            .collect();
        for id in gone {
            if let Some(places) = self.subjects.remove(&id) {
                self.leave(places.group);
            }
        }
        self.subjects.shrink_to(2 * self.subjects.len());
        self.members.shrink_to(2 * self.members.len());
    }

    /// Somebody has said what is there.
    pub fn learn(&mut self, key: SiteKey, code: Code) {
        if let Some(site) = self.known_mut(key) {
            site.code = Some(Arc::new(code));
        }
    }

    /// A question was not asked after all, and may be again.
    pub fn forget_question(&mut self, key: SiteKey) {
        if let Some(site) = self.known_mut(key) {
            site.is_asked = false;
        }
    }

    fn known_mut(&mut self, key: SiteKey) -> Option<&mut Known> {
        let sites = &mut self.subjects.get_mut(&key.subject)?.sites;
        sites
            .iter_mut()
            .find(|site| site.event as u32 == key.event && site.ip == key.ip)
    }

    fn known(&self, key: SiteKey) -> Option<&Known> {
        let sites = &self.subjects.get(&key.subject)?.sites;
        sites
            .iter()
            .find(|site| site.event as u32 == key.event && site.ip == key.ip)
    }

    /// What is at a site, as far as it is known.
    pub fn code(&self, key: SiteKey) -> Option<Arc<Code>> {
        self.known(key)?.code.clone()
    }

    /// Whether somebody was asked what is at a site, and has not answered.
    pub fn is_open(&self, key: SiteKey) -> bool {
        self.known(key)
            .is_some_and(|site| site.is_asked && site.code.is_none())
    }

    /// Sites of a subject's own code, or of its guest's, those with most records first.
    pub fn of(&self, subject: SubjectId, guest: bool) -> Vec<Site> {
        let mut sites = self.all(subject, |event| event.is_guest() == guest);
        sites.truncate(SHOWN);
        sites
    }

    /// All sites of a subject, those with most records first, and the records of others.
    pub fn detail(&self, subject: SubjectId) -> (Vec<Site>, u64) {
        let others = self
            .subjects
            .get(&subject)
            .map_or(0, |places| places.others);
        (self.all(subject, |_| true), others)
    }

    fn all(&self, subject: SubjectId, wanted: impl Fn(Event) -> bool) -> Vec<Site> {
        let Some(places) = self.subjects.get(&subject) else {
            return vec![];
        };
        let mut sites: Vec<&Known> = places
            .sites
            .iter()
            .filter(|site| wanted(site.event))
            .collect();
        sites.sort_by_key(|site| (Reverse(site.records), site.ip));
        sites.into_iter().map(Known::show).collect()
    }

    /// The newest events of a subject, newest first.
    pub fn recent(&self, subject: SubjectId) -> Vec<Story> {
        let Some(places) = self.subjects.get(&subject) else {
            return vec![];
        };
        places
            .recent
            .iter()
            .filter_map(|record| self.tell(record))
            .collect()
    }

    /// A record as a story, with the function that it happened in.
    pub fn tell(&self, record: &Record) -> Option<Story> {
        let code = self.code(SiteKey {
            subject: record.subject.into(),
            event: record.event,
            ip: record.ip,
        });
        stories::tell(record, code.as_deref())
    }
}

impl Places {
    const fn of(group: Group) -> Self {
        Self {
            group,
            records: 0,
            sites: vec![],
            others: 0,
            recent: VecDeque::new(),
            heard_ns: 0,
            asked: 0,
            asked_ns: 0,
        }
    }

    fn site(&mut self, event: Event, ip: u64) -> &mut Known {
        let found = self
            .sites
            .iter()
            .position(|site| site.event == event && site.ip == ip);
        let position = found.unwrap_or_else(|| {
            let new = Known {
                event,
                ip,
                records: 0,
                last_ns: 0,
                is_asked: false,
                code: None,
            };
            if self.sites.len() < SITES {
                self.sites.push(new);
                return self.sites.len() - 1;
            }
            let least = (0..self.sites.len())
                .min_by_key(|at| (self.sites[*at].records, self.sites[*at].last_ns))
                .unwrap_or(0);
            self.others += self.sites[least].records;
            self.sites[least] = new;
            least
        });
        &mut self.sites[position]
    }

    fn may_ask(&mut self, now_ns: u64) -> bool {
        if self.asked >= QUESTIONS && now_ns.saturating_sub(self.asked_ns) < QUESTION_NS {
            return false;
        }
        self.asked += 1;
        self.asked_ns = now_ns;
        true
    }
}

impl Known {
    fn show(&self) -> Site {
        Site {
            event: self.event.name(),
            ip: format!("{:#x}", self.ip),
            records: self.records,
            last: unix_seconds(self.last_ns),
            code: self.code.clone(),
        }
    }
}

fn question(
    subject: SubjectId,
    event: Event,
    told: &Told,
    registers: Option<[u32; 16]>,
) -> Question {
    let saw = |what: u64| told.sight.as_ref().filter(|sight| sight.seen & what != 0);
    Question {
        subject,
        ip: told.record.ip,
        // A debug exception comes after the instruction.
        is_behind: event
            .lock()
            .is_some_and(|lock| lock.trap == splitlock_common::Trap::BusLock),
        before: saw(SAW_BEFORE).map_or_else(Vec::new, |sight| sight.before.to_vec()),
        bytes: saw(SAW_AT).map_or_else(Vec::new, |sight| sight.at.to_vec()),
        registers: saw(SAW_REGISTERS)
            .zip(registers)
            .map(|(sight, offsets)| general_registers(sight, offsets)),
        in_file: told.sight.as_ref().and_then(in_file),
    }
}

fn general_registers(sight: &Sight, offsets: [u32; 16]) -> Registers {
    offsets.map(|offset| sight.pt_regs.get(offset as usize / 8).copied().unwrap_or(0))
}

fn in_file(sight: &Sight) -> Option<InFile> {
    (sight.in_file.status == splitlock_common::record::IN_FILE).then_some(InFile {
        build_id: sight.in_file.build_id,
        offset: sight.in_file.offset,
    })
}

#[cfg(test)]
mod tests;
