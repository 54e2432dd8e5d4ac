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
fn a_crowd_makes_room_for_itself() {
    let mut sites = Sites::new(None);
    let event = Event::UserSplitLockWarned;
    let from = |pid, cgroup_id, time_ns| {
        let mut told = told(pid, event, 5, time_ns);
        told.record.cgroup_id = cgroup_id;
        told
    };
    sites.add(&from(1, 20, 1));
    for pid in 2..=10_000 {
        sites.add(&from(pid, 10, u64::from(pid)));
    }
    assert_eq!(sites.subjects.len(), SUBJECTS);
    assert_eq!(sites.of(subject(1), false).len(), 1);
    // In no cgroup, who has more records stays.
    let mut sites = Sites::new(None);
    for time_ns in 0..3 {
        sites.add(&from(1, 0, time_ns));
    }
    for pid in 2..=10_000 {
        sites.add(&from(pid, 0, u64::from(pid)));
    }
    assert_eq!(sites.of(subject(1), false)[0].records, 3);
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
    assert_eq!(sites.members.values().sum::<usize>(), 1);
    assert_eq!(sites.of(subject(3), false).len(), 1);
}
