//! Where the traps are: per subject its instruction addresses, by the records that told of them, and
//! its newest records. Bounded, and no count: records are limited per subject and second.

use std::{
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
    code::{Code, InFile, Question, Registers},
    host::clock::unix_seconds,
    intake::records::Told,
    subjects::SubjectId,
};

/// Subjects whose sites are kept: those heard of last.
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
    /// Where `pt_regs` has the general registers.
    registers: Option<[u32; 16]>,
}

/// Those of one subject.
#[derive(Debug, Default)]
struct Places {
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
        let places = self.subjects.entry(subject).or_default();
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
        let quietest = self
            .subjects
            .iter()
            .min_by_key(|(_, places)| places.heard_ns)
            .map(|(id, _)| *id);
        if let Some(id) = quietest {
            self.subjects.remove(&id);
        }
    }

    /// Forgets the subjects that nobody knows any more.
    pub fn retain(&mut self, is_known: impl Fn(SubjectId) -> bool) {
        self.subjects.retain(|id, _| is_known(*id));
        self.subjects.shrink_to(2 * self.subjects.len());
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
        sites.sort_by_key(|site| (std::cmp::Reverse(site.records), site.ip));
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
mod tests {
    use super::*;
    use splitlock_common::{
        Hook,
        ledger::{SubjectKey, VCPU_UNKNOWN},
        record::{self, KIND_EVENT},
    };

    const SECOND: u64 = 1_000_000_000;

    fn told(pid: u32, event: Event, ip: u64, time_ns: u64) -> Told {
        Told {
            record: Record {
                kind: KIND_EVENT,
                event: event as u32,
                hook: Hook::HandleUserSplitLock as u32,
                cpu: 0,
                time_ns,
                subject: SubjectKey {
                    tgid: pid,
                    reserved: 0,
                    start_ns: 0,
                },
                tid: pid,
                vcpu_id: VCPU_UNKNOWN,
                ip,
                cgroup_id: 0,
                comm: [b'x'; 16],
            },
            sight: (!event.is_guest()).then_some(Sight {
                seen: SAW_AT | SAW_REGISTERS,
                in_file: record::InFile {
                    status: record::IN_FILE,
                    build_id: [9; 20],
                    offset: 0x1000,
                },
                before: [1; 16],
                at: [2; 16],
                pt_regs: std::array::from_fn(|word| word as u64),
            }),
        }
    }

    fn subject(pid: u32) -> SubjectId {
        SubjectId {
            pid,
            start_ticks: 0,
        }
    }

    #[test]
    fn a_site_is_counted_and_asked_for_once() {
        let offsets = std::array::from_fn(|number| (15 - number as u32) * 8);
        let mut sites = Sites::new(Some(offsets));
        let event = Event::UserSplitLockWarned;
        let (key, question) = sites.add(&told(7, event, 0x40, 1)).unwrap();
        assert!(sites.is_open(key));
        assert_eq!(question.bytes, [2; 16]);
        assert!(question.before.is_empty(), "it could not be read");
        assert_eq!(question.registers.unwrap()[..2], [15, 14]);
        assert_eq!(question.in_file.unwrap().offset, 0x1000);
        assert!(!question.is_behind);
        assert!(sites.add(&told(7, event, 0x40, 2)).is_none());
        sites.learn(
            key,
            Code {
                function: Some("spin".to_owned()),
                function_offset: Some("0x4".to_owned()),
                ..Code::default()
            },
        );
        assert!(!sites.is_open(key));
        let shown = sites.of(subject(7), false);
        assert_eq!((shown.len(), shown[0].records), (1, 2));
        assert_eq!(shown[0].ip, "0x40");
        assert_eq!(sites.recent(subject(7)).len(), 2);
        assert_eq!(
            sites.recent(subject(7))[0].function.as_deref(),
            Some("spin+0x4")
        );
        assert!(sites.of(subject(7), true).is_empty());
        assert!(sites.of(subject(8), false).is_empty());
    }

    #[test]
    fn a_bus_lock_is_behind_and_a_guest_is_not_asked_for() {
        let mut sites = Sites::new(None);
        let (_, question) = sites
            .add(&told(1, Event::UserBusLockWarned, 0x40, 1))
            .unwrap();
        assert!(question.is_behind);
        assert_eq!(question.registers, None);
        let guest = told(1, Event::GuestSplitLockWarned, 0xffff_8000, 2);
        assert!(sites.add(&guest).is_none());
        assert_eq!(sites.of(subject(1), true)[0].ip, "0xffff8000");
        assert_eq!(sites.of(subject(1), false).len(), 1);
    }

    #[test]
    fn the_busiest_stay_and_the_others_are_counted() {
        let mut sites = Sites::new(None);
        let event = Event::UserSplitLockWarned;
        for _ in 0..5 {
            sites.add(&told(1, event, 0x99, 1));
        }
        for ip in 1..=100 {
            sites.add(&told(1, event, ip, ip + 1));
        }
        let (all, others) = sites.detail(subject(1));
        assert_eq!(all.len(), SITES);
        assert_eq!((all[0].ip.as_str(), all[0].records), ("0x99", 5));
        let kept: u64 = all.iter().map(|site| site.records).sum();
        assert_eq!(kept + others, 105);
        assert_eq!(sites.of(subject(1), false).len(), SHOWN);
        assert_eq!(sites.recent(subject(1)).len(), RECENT);
    }

    #[test]
    fn questions_are_few_whatever_a_process_does() {
        let mut sites = Sites::new(None);
        let event = Event::AlignmentCheck;
        let mut asked = 0;
        for n in 0..1000 {
            // Ten in a second, each elsewhere.
            asked += u32::from(sites.add(&told(1, event, 1 + n, n * SECOND / 10)).is_some());
        }
        assert!((QUESTIONS..QUESTIONS + 11).contains(&asked), "{asked}");
    }

    #[test]
    fn a_question_that_found_no_room_is_asked_again() {
        let mut sites = Sites::new(None);
        let event = Event::UserSplitLockWarned;
        let (key, _) = sites.add(&told(1, event, 5, 1)).unwrap();
        sites.forget_question(key);
        assert!(!sites.is_open(key));
        assert!(sites.add(&told(1, event, 5, 2)).is_some());
    }

    #[test]
    fn who_was_not_heard_of_for_longest_makes_room() {
        let mut sites = Sites::new(None);
        let event = Event::UserSplitLockWarned;
        for pid in 1..=SUBJECTS as u32 {
            sites.add(&told(pid, event, 5, u64::from(pid)));
        }
        sites.add(&told(1, event, 5, 10_000));
        sites.add(&told(9999, event, 5, 10_001));
        assert_eq!(sites.subjects.len(), SUBJECTS);
        assert!(sites.of(subject(2), false).is_empty());
        for pid in [1, 3, 9999] {
            assert_eq!(sites.of(subject(pid), false).len(), 1, "{pid}");
        }
        sites.retain(|id| id.pid == 3);
        assert_eq!(sites.subjects.len(), 1);
        assert_eq!(sites.of(subject(3), false).len(), 1);
    }
}
