//! The series of workloads, processes and VMs.
//!
//! Subjects that have the same labels share their series, which show the sum: a pid that was used
//! again by a process of the same comm, a VM that was started again with its UUID.

use std::collections::BTreeMap;

use splitlock_common::{Event, Lock};

use super::series::Series;
use crate::{
    export::metrics,
    table::snapshot::{
        ByReason, Carried, Owner, ProcessRow, TrapCount, VmRow, WorkloadRow, add_reasons,
    },
};

const NANOSECONDS: f64 = 1e9;

/// Those of workloads.
pub fn workloads(rows: &[WorkloadRow]) -> Vec<Series> {
    let mut traps = Series::of(&metrics::WORKLOAD_TRAPS);
    for WorkloadRow {
        comm,
        unit,
        traps: counts,
    } in rows
    {
        for trap in counts {
            let labels = [comm, unit, trap.trap, trap.outcome];
            traps.add(&labels, trap.count as f64);
        }
    }
    vec![traps]
}

/// What is there of processes and of VMs alike.
#[derive(Default)]
struct Common {
    traps: BTreeMap<Lock, u64>,
    delay_ns: u64,
    last_trap: Option<f64>,
}

impl Common {
    fn add(
        &mut self,
        traps: &[TrapCount],
        delay_ns: u64,
        last_trap: Option<f64>,
        carried: &Carried,
    ) {
        for event in Event::ALL {
            let Some(lock) = event.lock() else { continue };
            let own = traps
                .iter()
                .find(|trap| **trap == TrapCount::new(lock, trap.count))
                .map_or(0, |trap| trap.count);
            let count = own + carried.events[event.index()];
            if count > 0 {
                *self.traps.entry(lock).or_default() += count;
            }
        }
        self.delay_ns += delay_ns + carried.delay_ns;
        // Not of the latest subject but of all: an earlier one's may be the last.
        self.last_trap = [self.last_trap, last_trap]
            .into_iter()
            .flatten()
            .reduce(f64::max);
    }
}

#[derive(Default)]
struct ProcessSeries<'a> {
    common: Common,
    alignment_checks: u64,
    latest: Option<&'a ProcessRow>,
}

impl<'a> ProcessSeries<'a> {
    fn add(&mut self, row: &'a ProcessRow) {
        self.common
            .add(&row.traps, row.delay_ns, row.last_trap, &row.carried);
        self.alignment_checks +=
            row.alignment_checks + row.carried.events[Event::AlignmentCheck.index()];
        // One that lives speaks for all, else the one that began last.
        let rank = |row: &ProcessRow| (row.alive, row.subject.start_ticks);
        self.latest = self
            .latest
            .into_iter()
            .chain([row])
            .max_by_key(|row| rank(row));
    }
}

/// Those of processes.
pub fn processes(rows: &[ProcessRow]) -> Vec<Series> {
    let mut by_name: BTreeMap<(&str, u32), ProcessSeries<'_>> = BTreeMap::new();
    for row in rows {
        by_name
            .entry((&row.comm, row.subject.pid))
            .or_default()
            .add(row);
    }
    let mut traps = Series::of(&metrics::PROCESS_TRAPS);
    let mut checks = Series::of(&metrics::PROCESS_ALIGNMENT_CHECKS);
    let mut delay = Series::of(&metrics::PROCESS_DELAY);
    let mut last = Series::of(&metrics::PROCESS_LAST_TRAP);
    let mut info = Series::of(&metrics::PROCESS_INFO);
    for ((comm, pid), series) in by_name {
        let pid = pid.to_string();
        for (lock, count) in series.common.traps {
            let labels = [comm, &pid, lock.trap.name(), lock.outcome.name()];
            traps.add(&labels, count as f64);
        }
        if series.alignment_checks > 0 {
            checks.add(&[comm, &pid], series.alignment_checks as f64);
        }
        if series.common.delay_ns > 0 {
            delay.add(&[comm, &pid], series.common.delay_ns as f64 / NANOSECONDS);
        }
        if let Some(time) = series.common.last_trap {
            last.add(&[comm, &pid], time);
        }
        if let Some(row) = series.latest {
            let Owner {
                exe,
                command_line: _,
                missing: _,
                cgroup,
                unit,
                container_id,
                pod_uid,
            } = &*row.owner;
            info.add(&[comm, &pid, exe, cgroup, unit, container_id, pod_uid], 1.0);
        }
    }
    vec![traps, checks, delay, last, info]
}

#[derive(Default)]
struct VmSeries<'a> {
    common: Common,
    ac_injected: u64,
    exits: ByReason,
    userspace_exits: ByReason,
    latest: Option<&'a VmRow>,
}

impl<'a> VmSeries<'a> {
    fn add(&mut self, row: &'a VmRow) {
        self.common
            .add(&row.traps, row.delay_ns, row.last_trap, &row.carried);
        self.ac_injected += row.ac_injected + row.carried.events[Event::AcInjected.index()];
        for (sums, counts) in [
            (&mut self.exits, [&row.exits, &row.carried.exits]),
            (
                &mut self.userspace_exits,
                [&row.userspace_exits, &row.carried.userspace_exits],
            ),
        ] {
            for counts in counts {
                add_reasons(sums, counts);
            }
        }
        // One that lives speaks for all, else the one that began last.
        let rank = |row: &VmRow| (row.alive, row.subject.start_ticks);
        self.latest = self
            .latest
            .into_iter()
            .chain([row])
            .max_by_key(|row| rank(row));
    }
}

/// Those of VMs.
pub fn vms(rows: &[VmRow]) -> Vec<Series> {
    let mut by_name: BTreeMap<(&str, &str), VmSeries<'_>> = BTreeMap::new();
    for row in rows {
        by_name.entry((&row.vm, &row.id)).or_default().add(row);
    }
    let mut traps = Series::of(&metrics::VM_TRAPS);
    let mut injected = Series::of(&metrics::VM_AC_INJECTED);
    let mut delay = Series::of(&metrics::VM_DELAY);
    let mut last = Series::of(&metrics::VM_LAST_TRAP);
    let mut exits = Series::of(&metrics::VM_EXITS);
    let mut userspace = Series::of(&metrics::VM_USERSPACE_EXITS);
    let mut info = Series::of(&metrics::VM_INFO);
    for ((vm, id), series) in by_name {
        for (lock, count) in series.common.traps {
            let labels = [vm, id, lock.trap.name(), lock.outcome.name()];
            traps.add(&labels, count as f64);
        }
        if series.ac_injected > 0 {
            injected.add(&[vm, id], series.ac_injected as f64);
        }
        if series.common.delay_ns > 0 {
            delay.add(&[vm, id], series.common.delay_ns as f64 / NANOSECONDS);
        }
        if let Some(time) = series.common.last_trap {
            last.add(&[vm, id], time);
        }
        for (reason, count) in &series.exits {
            exits.add(&[vm, id, reason], *count as f64);
        }
        for (reason, count) in &series.userspace_exits {
            userspace.add(&[vm, id, reason], *count as f64);
        }
        if let Some(row) = series.latest {
            let owner = &row.owner;
            let pid = row.subject.pid.to_string();
            let (cgroup, container) = (&owner.cgroup, &owner.container_id);
            let labels = [
                vm,
                id,
                row.vmm.name(),
                &pid,
                cgroup,
                container,
                &owner.pod_uid,
            ];
            info.add(&labels, 1.0);
        }
    }
    vec![traps, injected, delay, last, exits, userspace, info]
}
