//! The series of workloads, processes and VMs.
//!
//! Subjects that have the same labels share their series, which show the sum: a pid that was used
//! again by a process of the same comm, a VM that was started again with its UUID.

use std::{cmp::Ordering, fmt::Display};

use splitlock_common::Event;

use super::text::Text;
use crate::{
    export::metrics::{self, Family},
    subjects::SubjectId,
    table::snapshot::{
        ByReason, Carried, Owner, ProcessRow, TrapCount, VmRow, WorkloadRow, add_reasons,
    },
};

const NANOSECONDS: f64 = 1e9;

/// Those of workloads.
pub fn write_workloads(rows: &[WorkloadRow], text: &mut Text) {
    let mut traps = text.family(&metrics::WORKLOAD_TRAPS);
    for WorkloadRow {
        comm,
        unit,
        traps: counts,
    } in rows
    {
        for trap in counts {
            traps.add(&[comm, unit, &trap.trap, &trap.outcome], trap.count);
        }
    }
}

/// Those of processes.
pub fn write_processes(rows: &[ProcessRow], text: &mut Text) {
    let groups = Groups::of(rows);
    write_traps(&groups, &metrics::PROCESS_TRAPS, text);
    let mut checks = text.family(&metrics::PROCESS_ALIGNMENT_CHECKS);
    for group in groups.iter() {
        let count = group.sum(
            |row| row.alignment_checks,
            |carried| carried.events[Event::AlignmentCheck.index()],
        );
        if count > 0 {
            checks.add(&group.labels(), count);
        }
    }
    write_delay(&groups, &metrics::PROCESS_DELAY, text);
    write_last_trap(&groups, &metrics::PROCESS_LAST_TRAP, text);
    let mut info = text.family(&metrics::PROCESS_INFO);
    for group in groups.iter() {
        let [comm, pid] = group.labels();
        let Owner {
            exe,
            command_line: _,
            missing: _,
            cgroup,
            unit,
            container_id,
            pod_uid,
        } = &*group.latest().owner;
        info.add(&[comm, pid, exe, cgroup, unit, container_id, pod_uid], 1);
    }
}

/// Those of VMs.
pub fn write_vms(rows: &[VmRow], text: &mut Text) {
    let groups = Groups::of(rows);
    write_traps(&groups, &metrics::VM_TRAPS, text);
    let mut injected = text.family(&metrics::VM_AC_INJECTED);
    for group in groups.iter() {
        let count = group.sum(
            |row| row.ac_injected,
            |carried| carried.events[Event::AcInjected.index()],
        );
        if count > 0 {
            injected.add(&group.labels(), count);
        }
    }
    write_delay(&groups, &metrics::VM_DELAY, text);
    write_last_trap(&groups, &metrics::VM_LAST_TRAP, text);
    write_reasons(
        &groups,
        &metrics::VM_EXITS,
        |row| &row.exits,
        |carried| &carried.exits,
        text,
    );
    write_reasons(
        &groups,
        &metrics::VM_USERSPACE_EXITS,
        |row| &row.userspace_exits,
        |carried| &carried.userspace_exits,
        text,
    );
    let mut info = text.family(&metrics::VM_INFO);
    for group in groups.iter() {
        let [vm, id] = group.labels();
        let VmRow {
            subject,
            vmm,
            owner,
            ..
        } = group.latest();
        let labels: [&dyn Display; 7] = [
            vm,
            id,
            &vmm.name(),
            &subject.pid,
            &owner.cgroup,
            &owner.container_id,
            &owner.pod_uid,
        ];
        info.add(&labels, 1);
    }
}

fn write_traps<R: Row>(groups: &Groups<'_, R>, family: &'static Family, text: &mut Text) {
    let mut traps = text.family(family);
    for group in groups.iter() {
        let [name, id] = group.labels();
        for event in Event::ALL {
            let Some(lock) = event.lock() else { continue };
            let own = |row: &R| {
                let same = |trap: &&TrapCount| **trap == TrapCount::new(lock, trap.count);
                row.traps().iter().find(same).map_or(0, |trap| trap.count)
            };
            let count = group.sum(own, |carried| carried.events[event.index()]);
            if count > 0 {
                let labels = [name, id, &lock.trap.name(), &lock.outcome.name()];
                traps.add(&labels, count);
            }
        }
    }
}

fn write_delay<R: Row>(groups: &Groups<'_, R>, family: &'static Family, text: &mut Text) {
    let mut delay = text.family(family);
    for group in groups.iter() {
        let nanoseconds = group.sum(R::delay_ns, |carried| carried.delay_ns);
        if nanoseconds > 0 {
            delay.add(&group.labels(), nanoseconds as f64 / NANOSECONDS);
        }
    }
}

fn write_last_trap<R: Row>(groups: &Groups<'_, R>, family: &'static Family, text: &mut Text) {
    let mut last = text.family(family);
    for group in groups.iter() {
        // Not of the latest subject but of all: an earlier one's may be the last.
        if let Some(time) = group
            .0
            .iter()
            .filter_map(|row| row.last_trap())
            .reduce(f64::max)
        {
            last.add(&group.labels(), time);
        }
    }
}

fn write_reasons(
    groups: &Groups<'_, VmRow>,
    family: &'static Family,
    own: impl Fn(&VmRow) -> &ByReason,
    carried: impl Fn(&Carried) -> &ByReason,
    text: &mut Text,
) {
    let mut series = text.family(family);
    for group in groups.iter() {
        let mut sums = ByReason::new();
        for row in group.0 {
            add_reasons(&mut sums, own(row));
            if let Some(left) = row.carried() {
                add_reasons(&mut sums, carried(left));
            }
        }
        let [vm, id] = group.labels();
        for (reason, count) in &sums {
            series.add(&[vm, id, reason], count);
        }
    }
}

/// What is there of processes and of VMs alike.
trait Row {
    /// The two labels that all its series have.
    fn labels(&self) -> [&dyn Display; 2];
    /// By them.
    fn order(&self, other: &Self) -> Ordering;
    fn subject(&self) -> SubjectId;
    fn alive(&self) -> bool;
    fn traps(&self) -> &[TrapCount];
    fn delay_ns(&self) -> u64;
    fn last_trap(&self) -> Option<f64>;
    fn carried(&self) -> Option<&Carried>;
}

macro_rules! row {
    ($row:ty, $($name:ident).+, $($id:ident).+) => {
        impl Row for $row {
            fn labels(&self) -> [&dyn Display; 2] {
                [&self.$($name).+, &self.$($id).+]
            }

            fn order(&self, other: &Self) -> Ordering {
                (&self.$($name).+, &self.$($id).+).cmp(&(&other.$($name).+, &other.$($id).+))
            }

            fn subject(&self) -> SubjectId {
                self.subject
            }

            fn alive(&self) -> bool {
                self.alive
            }

            fn traps(&self) -> &[TrapCount] {
                &self.traps
            }

            fn delay_ns(&self) -> u64 {
                self.delay_ns
            }

            fn last_trap(&self) -> Option<f64> {
                self.last_trap
            }

            fn carried(&self) -> Option<&Carried> {
                self.carried.as_deref()
            }
        }
    };
}

row!(ProcessRow, comm, subject.pid);
row!(VmRow, vm, id);

/// Rows in the order of their labels.
struct Groups<'a, R>(Vec<&'a R>);

impl<'a, R: Row> Groups<'a, R> {
    fn of(rows: &'a [R]) -> Self {
        let mut rows: Vec<&R> = rows.iter().collect();
        rows.sort_by(|a, b| a.order(b));
        Self(rows)
    }

    fn iter(&self) -> impl Iterator<Item = Group<'_, R>> {
        self.0.chunk_by(|a, b| a.order(b).is_eq()).map(Group)
    }
}

/// Rows with the same labels, at least one.
struct Group<'a, R>(&'a [&'a R]);

impl<'a, R: Row> Group<'a, R> {
    fn labels(&self) -> [&'a dyn Display; 2] {
        self.0[0].labels()
    }

    /// One that lives speaks for all, else the one that began last.
    fn latest(&self) -> &'a R {
        let rank = |row: &R| (row.alive(), row.subject().start_ticks);
        self.0[1..].iter().fold(self.0[0], |latest, row| {
            if rank(row) >= rank(latest) {
                row
            } else {
                latest
            }
        })
    }

    /// Of all rows, and of what was left to them.
    fn sum(&self, own: impl Fn(&R) -> u64, carried: impl Fn(&Carried) -> u64) -> u64 {
        let of = |row: &R| own(row) + row.carried().map_or(0, &carried);
        self.0.iter().map(|row| of(row)).sum()
    }
}
