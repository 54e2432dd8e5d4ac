//! What names bring about: whose series a subject has, and which workload it counts for.

use super::*;

#[test]
fn everyone_is_named_once_as_a_process_and_once_as_a_vm() {
    let mut table = table(10, 10);
    let unnamed = |table: &mut Table| -> Vec<u32> {
        table
            .take_unnamed()
            .iter()
            .map(|who| who.subject.pid)
            .collect()
    };
    table.read_trap(key(1), &entry("p", &[(FATAL, 1)]));
    table.read_trap(key(1), &entry("p", &[(FATAL, 2)]));
    assert_eq!(unnamed(&mut table), [1]);
    table.name(&identity(1, "web", Some(UUID)));
    table.read_trap(key(1), &entry("p", &[(FATAL, 3)]));
    assert!(unnamed(&mut table).is_empty());
    assert_eq!(processes(&mut table)[0].owner.unit, "vmm.service");
    // It becomes a VM, perhaps after an execve: its name is asked for then.
    table.read_exits(key(1), &head(), tally(5));
    assert_eq!(unnamed(&mut table), [1]);
    table.name(&identity(1, "web", Some(UUID)));
    let vms = vms(&mut table);
    assert_eq!((vms[0].vm.as_str(), vms[0].id.as_str()), ("web", UUID));
    table.read_exits(key(1), &head(), tally(6));
    assert!(unnamed(&mut table).is_empty());
}

#[test]
fn an_answer_about_the_program_before_names_no_vm() {
    let mut table = table(10, 10);
    table.read_trap(key(1), &entry("sh", &[(FATAL, 1)]));
    let asked = table.take_unnamed();
    assert!(!asked[0].is_vm);
    // Meanwhile it has become a VMM.
    table.read_exits(key(1), &head(), tally(1));
    assert!(table.take_unnamed()[0].is_vm);
    let first = Identity {
        is_vm: false,
        ..identity(1, "sh", None)
    };
    table.name(&first);
    assert!(table.vms().is_empty());
    table.name(&identity(1, "web", Some(UUID)));
    assert_eq!(table.vms()[0].vm, "web");
}

#[test]
fn a_vm_that_comes_back_with_its_uuid_goes_on_in_its_series() {
    let mut table = table(10, 10);
    let now = Instant::now();
    let sum = |table: &mut Table| -> u64 {
        let of = |exits: &BTreeMap<&str, u64>| exits.get("cpuid").copied().unwrap_or(0);
        let rows = vms(table);
        assert!(rows.iter().all(|row| row.id == UUID), "{rows:?}");
        rows.iter()
            .map(|row| {
                of(&row.exits) + row.carried.as_ref().map_or(0, |carried| of(&carried.exits))
            })
            .sum()
    };
    for (tgid, total) in [(1, 7), (2, 14), (3, 21)] {
        table.read_exits(key(tgid), &head(), tally(7));
        name(&mut table, &identity(tgid, "web", Some(UUID)));
        assert_eq!(sum(&mut table), total);
        table.end(key(tgid).into(), now);
    }
    table.read_exits(key(4), &head(), tally(7));
    name(&mut table, &identity(4, "web", Some(UUID)));
    table.expire(now + RETENTION);
    assert_eq!(vms(&mut table).len(), 1);
    assert_eq!(sum(&mut table), 28);
    // Another one that claims it at the same time does not get it.
    table.read_exits(key(5), &head(), tally(1));
    name(&mut table, &identity(5, "web", Some(UUID)));
    assert_eq!(vms(&mut table)[1].id, "5-5");
}

#[test]
fn an_id_has_one_name_at_a_time() {
    let mut table = table(10, 10);
    table.read_exits(key(1), &head(), tally(7));
    name(&mut table, &identity(1, "old", Some(UUID)));
    table.end(key(1).into(), Instant::now());
    table.read_exits(key(2), &head(), tally(8));
    name(&mut table, &identity(2, "new", Some(UUID)));
    let names: Vec<String> = vms(&mut table).into_iter().map(|row| row.vm).collect();
    assert_eq!(names, ["new"]);
    assert_eq!(table.tracked()["vm"].used, 1);
}

#[test]
fn what_an_ended_vm_shows_stays_with_its_next_life() {
    let mut table = table(10, 2);
    table.read_exits(key(1), &head(), tally(100));
    name(&mut table, &identity(1, "web", Some(UUID)));
    table.end(key(1).into(), Instant::now());
    table.read_exits(key(2), &head(), tally(50));
    name(&mut table, &identity(2, "web", Some(UUID)));
    // A newcomer takes the place of the life that has ended.
    table.read_exits(key(3), &head(), tally(1));
    let row = &vms(&mut table)[0];
    let carried = row.carried.as_ref().unwrap();
    assert_eq!((row.exits["cpuid"], carried.exits["cpuid"]), (50, 100));
}

#[test]
fn a_vm_that_never_ran_is_shown_while_it_lives() {
    let mut table = table(10, 10);
    assert!(table.meet_vm(key(1).into(), b"qemu"));
    assert!(!table.meet_vm(key(1).into(), b"qemu"));
    name(&mut table, &identity(1, "web", Some(UUID)));
    assert_eq!(vms(&mut table)[0].vm, "web");
    table.end(key(1).into(), Instant::now());
    assert!(vms(&mut table).is_empty());
    assert_eq!(table.tracked()["vm"].used, 0);
    // Its UUID is free again.
    table.meet_vm(key(2).into(), b"qemu");
    name(&mut table, &identity(2, "web", Some(UUID)));
    assert_eq!(vms(&mut table)[0].id, UUID);
}

#[test]
fn a_workload_is_told_every_lock_once() {
    let mut table = table(2, 2);
    let sum = |table: &mut Table| -> u64 {
        let rows = table.workloads();
        assert!(rows.len() <= 1, "{rows:?}");
        rows.iter()
            .flat_map(|row| &row.traps)
            .map(|trap| trap.count)
            .sum()
    };
    let check = Event::AlignmentCheck;
    table.read_trap(key(1), &entry("p", &[(check, 9)]));
    name(&mut table, &identity(1, "", None));
    assert_eq!(sum(&mut table), 0);
    assert!(table.workloads().is_empty(), "it has no locks");
    table.read_trap(key(1), &entry("p", &[(check, 9), (FATAL, 5)]));
    table.read_trap(key(1), &entry("p", &[(check, 9), (FATAL, 7)]));
    table.count_event(key(1).into(), b"p", Event::UserSplitLockWarned, 1);
    assert_eq!(sum(&mut table), 8);
    // Also of processes that have no series of their own, and of those that have gone.
    let now = Instant::now();
    for tgid in 2..=5 {
        table.read_trap(key(tgid), &entry("p", &[(FATAL, 10)]));
        name(&mut table, &identity(tgid, "", None));
        table.end(key(tgid).into(), now);
    }
    table.expire(now + RETENTION);
    assert_eq!(sum(&mut table), 48);
    assert_eq!(table.overflow()["process"], 30);
    assert_eq!(table.overflow()["workload"], 0);
}

#[test]
fn locks_of_workloads_past_the_limit_are_in_the_overflow() {
    let mut table = Table::new(Limits {
        processes: 10,
        vms: 10,
        workloads: 1,
        retention: RETENTION,
    });
    for (tgid, comm) in [(1, "a"), (2, "b"), (3, "b")] {
        table.read_trap(key(tgid), &entry(comm, &[(FATAL, 10)]));
        name(&mut table, &identity(tgid, "", None));
    }
    table.read_trap(key(2), &entry("b", &[(FATAL, 11)]));
    assert_eq!(table.workloads().len(), 1);
    assert_eq!(table.overflow()["workload"], 21);
    table.end(key(2).into(), Instant::now());
    table.expire(Instant::now() + RETENTION);
    assert_eq!(table.overflow()["workload"], 21);
    let full = Fullness { used: 1, limit: 1 };
    assert_eq!(table.tracked()["workload"], full);
}
