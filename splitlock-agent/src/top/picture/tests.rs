use serde_json::{Value, json};

use super::*;
use crate::top::fixture::{answer, pictures, process, vm};

fn key(pid: u32) -> SubjectId {
    SubjectId {
        pid,
        start_ticks: 100,
    }
}

/// The rates of a VM's locks, picture after picture.
fn lock_rates(answers: Vec<Answer>) -> Vec<Option<f64>> {
    pictures(answers)
        .iter()
        .map(|picture| {
            let row = picture.find(Kind::Vm, key(1));
            row.and_then(|row| Some(row.rates.as_ref()?.locks()))
        })
        .collect()
}

#[test]
fn rates_are_of_two_pictures() {
    let found = pictures([
        answer(0.0, &[vm(1, "a", 100, 1000)], &[process(2, "b", 10)]),
        answer(2.0, &[vm(1, "a", 150, 3000)], &[process(2, "b", 11)]),
    ]);
    assert_eq!(found[0].find(Kind::Vm, key(1)).unwrap().rates, None);
    assert_eq!(found[0].totals[0].rate, None);
    let row = found[1].find(Kind::Vm, key(1)).unwrap();
    let rates = row.rates.as_ref().unwrap();
    assert_eq!((rates.split, rates.bus), (25.0, 0.0));
    assert_eq!((rates.exits, rates.returns), (1000.0, 100.0));
    // `hlt` and `msr_write`.
    assert_eq!(rates.by_reason, [250.0, 750.0]);
    assert_eq!(row.top_reason.as_deref(), Some("msr_write"));
    assert!((rates.delay - 0.25).abs() < 1e-9);
    let row = found[1].find(Kind::Process, key(2)).unwrap();
    assert_eq!(row.rates.as_ref().unwrap().checks, 0.5);
    assert_eq!(found[1].totals[0].rate, Some(10.0));
}

#[test]
fn an_agent_that_began_anew_has_no_rates_at_first() {
    let rates = lock_rates(vec![
        answer(0.0, &[vm(1, "a", 100, 0)], &[]),
        answer(1.0, &[vm(1, "a", 3, 0)], &[]),
        answer(2.0, &[vm(1, "a", 5, 0)], &[]),
    ]);
    assert_eq!(rates, [None, None, Some(2.0)]);
    // One counter that went back is enough for all, also for those that are larger than before.
    let found = pictures([
        answer(0.0, &[vm(1, "a", 100, 0), vm(2, "b", 1, 0)], &[]),
        answer(1.0, &[vm(1, "a", 3, 0), vm(2, "b", 9, 0)], &[]),
    ]);
    assert!(found[1].restarted);
    assert!(
        found[1]
            .rows(Kind::Vm)
            .iter()
            .all(|row| row.rates.is_none())
    );
    assert!(found[1].totals.iter().all(|total| total.rate.is_none()));
}

#[test]
fn who_is_new_was_counted_from_zero_if_nobody_waits_for_a_place() {
    let rates = lock_rates(vec![
        answer(0.0, &[], &[]),
        answer(1.0, &[vm(1, "a", 30, 0)], &[]),
    ]);
    assert_eq!(rates, [None, Some(30.0)]);
    // It may have had a place before, with a million.
    let full = |second, vms: &[Value]| {
        let mut answer = answer(second, vms, &[]);
        answer
            .tracked
            .values_mut()
            .for_each(|places| places.limit = places.used);
        answer
    };
    let rates = lock_rates(vec![full(0.0, &[]), full(1.0, &[vm(1, "a", 1_000_000, 0)])]);
    assert_eq!(rates, [None, None]);
}

#[test]
fn a_pid_that_is_used_again_is_somebody_else() {
    let mut later = vm(1, "a", 1, 0);
    later["start_ticks"] = json!(200);
    let found = pictures([
        answer(0.0, &[vm(1, "a", 100, 0)], &[]),
        answer(1.0, &[later], &[]),
    ]);
    assert!(!found[1].restarted);
    assert_eq!(
        found[1].rows(Kind::Vm)[0].rates.as_ref().unwrap().split,
        1.0
    );
}

#[test]
fn a_clock_that_is_set_makes_no_absurd_rates() {
    let start = Instant::now();
    for jump in [-3600.0, 3600.0, -0.9999] {
        let first = Picture::new(answer(0.0, &[vm(1, "a", 100, 0)], &[]), start, None);
        let mut second = answer(1.0, &[vm(1, "a", 110, 0)], &[]);
        second.taken_at += jump;
        let second = Picture::new(second, start + Duration::from_secs(1), Some(&first));
        let row = second.find(Kind::Vm, key(1)).unwrap();
        assert_eq!(row.rates.as_ref().unwrap().split, 10.0, "{jump}");
    }
}

#[test]
fn the_same_snapshot_twice_has_no_rates() {
    let rates = lock_rates(vec![
        answer(1.0, &[vm(1, "a", 100, 0)], &[]),
        answer(1.0, &[vm(1, "a", 100, 0)], &[]),
    ]);
    assert_eq!(rates, [None, None]);
}

#[test]
fn counts_without_measure_do_not_overflow() {
    let mut row = vm(1, "a", 0, 0);
    row["traps"] = json!([
        {"origin": "guest", "trap": "split_lock", "outcome": "warned", "count": u64::MAX},
        {"origin": "guest", "trap": "bus_lock", "outcome": "reported", "count": u64::MAX},
    ]);
    row["exits"] = json!({"a": u64::MAX, "b": u64::MAX});
    let found = pictures([answer(0.0, &[row.clone()], &[]), answer(1.0, &[row], &[])]);
    let row = &found[1].rows(Kind::Vm)[0];
    assert_eq!(row.tally.locks(), u64::MAX);
    assert_eq!(row.rates.as_ref().unwrap().exits, 0.0);
}

#[test]
fn after_a_silence_there_are_no_rates_at_first() {
    let before = pictures([answer(0.0, &[vm(1, "a", 100, 0)], &[])]).remove(0);
    let later = before.at + Duration::from_secs(9);
    for (locks, restarted) in [(100, false), (900, false), (3, true)] {
        let picture = before.after_silence(answer(9.0, &[vm(1, "a", locks, 0)], &[]), later);
        assert_eq!(picture.restarted, restarted, "{locks}");
        assert!(picture.rows(Kind::Vm)[0].rates.is_none());
    }
}
