//! The Prometheus text exposition of a snapshot.

use std::collections::BTreeMap;

use prometheus::{
    Encoder as _, TextEncoder,
    core::Collector as _,
    process_collector::ProcessCollector,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};
use splitlock_common::{Event, Lock, Mode};

use super::metrics::{self, Family};
use crate::table::snapshot::{ProcessRow, Snapshot, TrapCount, VmRow};

/// `Content-Type` of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const NANOSECONDS: f64 = 1e9;

/// Writes the exposition of a snapshot, with the agent's own `process_*` metrics.
///
/// # Errors
/// Never in practice: the encoder refuses families that this module does not make.
pub fn encode(snapshot: &Snapshot, own: &ProcessCollector) -> prometheus::Result<Vec<u8>> {
    let mut families = families(snapshot);
    families.extend(own.collect());
    let mut text = vec![];
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

/// The families of a snapshot. One without values is left out.
fn families(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut families = vec![];
    let mut add = |series: Series| families.extend(series.into_family());
    for series in host(snapshot) {
        add(series);
    }
    for series in processes(&snapshot.processes) {
        add(series);
    }
    for series in vms(&snapshot.vms) {
        add(series);
    }
    for series in agent(snapshot) {
        add(series);
    }
    families
}

/// The values of one family.
struct Series {
    family: &'static Family,
    metrics: Vec<Metric>,
}

impl Series {
    fn of(family: &'static Family) -> Self {
        Self {
            family,
            metrics: vec![],
        }
    }

    fn add(&mut self, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), self.family.labels.len());
        let labels = self
            .family
            .labels
            .iter()
            .zip(labels)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value((*value).to_owned());
                pair
            })
            .collect();
        let mut metric = Metric::from_label(labels);
        if self.family.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    fn into_family(self) -> Option<MetricFamily> {
        if self.metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(self.family.kind);
        family.set_metric(self.metrics);
        Some(family)
    }
}

fn host(snapshot: &Snapshot) -> Vec<Series> {
    let mut traps = Series::of(&metrics::HOST_TRAPS);
    for TrapCount {
        origin,
        trap,
        outcome,
        count,
    } in &snapshot.host_traps
    {
        traps.add(&[origin, trap, outcome], *count as f64);
    }
    let mut overflow = Series::of(&metrics::OVERFLOW_TRAPS);
    for (kind, count) in &snapshot.overflow_traps {
        overflow.add(&[kind], *count as f64);
    }
    let mut mode = Series::of(&metrics::DETECTION_MODE);
    for known in Mode::ALL {
        let is_it = known.name() == snapshot.host.detection_mode;
        mode.add(&[known.name()], f64::from(u8::from(is_it)));
    }
    let mut source = Series::of(&metrics::DETECTION_SOURCE);
    source.add(&[snapshot.host.detection_source], 1.0);
    let mut sees = Series::of(&metrics::SEES);
    for (origin, sees_it) in &snapshot.host.sees {
        sees.add(&[origin], f64::from(u8::from(*sees_it)));
    }
    let mut changes = Series::of(&metrics::DETECTION_CHANGES);
    changes.add(&[], snapshot.host.changes as f64);
    let mut features = Series::of(&metrics::CPU_FEATURE);
    for (feature, has) in &snapshot.host.cpu_features {
        features.add(&[feature], f64::from(u8::from(*has)));
    }
    let mut mitigation = Series::of(&metrics::MITIGATION_ENABLED);
    if let Some(enabled) = snapshot.host.mitigation {
        mitigation.add(&[], f64::from(u8::from(enabled)));
    }
    let mut reports = Series::of(&metrics::KERNEL_LOG_REPORTS);
    for (trap, count) in &snapshot.kernel_log_reports {
        reports.add(&[trap], *count as f64);
    }
    let mut history = Series::of(&metrics::KERNEL_LOG_HISTORY);
    for (trap, count) in snapshot.kernel_log_history.iter().flatten() {
        history.add(&[trap], *count as f64);
    }
    vec![
        traps, overflow, mode, source, sees, changes, features, mitigation, reports, history,
    ]
}

/// What the series of one comm and pid show: the sum over the processes that share them.
#[derive(Default)]
struct ProcessSeries {
    traps: BTreeMap<Lock, u64>,
    alignment_checks: u64,
    delay_ns: u64,
    last_trap: Option<f64>,
}

impl ProcessSeries {
    fn add(&mut self, row: &ProcessRow) {
        for event in Event::ALL {
            let Some(lock) = event.lock() else { continue };
            let own = row
                .traps
                .iter()
                .find(|trap| **trap == TrapCount::new(lock, trap.count))
                .map_or(0, |trap| trap.count);
            let count = own + row.carried.events[event.index()];
            if count > 0 {
                *self.traps.entry(lock).or_default() += count;
            }
        }
        self.alignment_checks +=
            row.alignment_checks + row.carried.events[Event::AlignmentCheck.index()];
        self.delay_ns += row.delay_ns + row.carried.delay_ns;
        // A later process of the same pid comes later in the rows.
        self.last_trap = row.last_trap.or(self.last_trap);
    }
}

fn processes(rows: &[ProcessRow]) -> Vec<Series> {
    let mut by_name: BTreeMap<(&str, u32), ProcessSeries> = BTreeMap::new();
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
    for ((comm, pid), series) in by_name {
        let pid = pid.to_string();
        for (lock, count) in series.traps {
            let labels = [comm, &pid, lock.trap.name(), lock.outcome.name()];
            traps.add(&labels, count as f64);
        }
        if series.alignment_checks > 0 {
            checks.add(&[comm, &pid], series.alignment_checks as f64);
        }
        if series.delay_ns > 0 {
            delay.add(&[comm, &pid], series.delay_ns as f64 / NANOSECONDS);
        }
        if let Some(time) = series.last_trap {
            last.add(&[comm, &pid], time);
        }
    }
    vec![traps, checks, delay, last]
}

fn vms(rows: &[VmRow]) -> Vec<Series> {
    let mut traps = Series::of(&metrics::VM_TRAPS);
    let mut injected = Series::of(&metrics::VM_AC_INJECTED);
    let mut delay = Series::of(&metrics::VM_DELAY);
    let mut last = Series::of(&metrics::VM_LAST_TRAP);
    let mut exits = Series::of(&metrics::VM_EXITS);
    let mut userspace = Series::of(&metrics::VM_USERSPACE_EXITS);
    for row in rows {
        let (vm, id) = (row.vm.as_str(), row.id.as_str());
        for trap in &row.traps {
            traps.add(&[vm, id, trap.trap, trap.outcome], trap.count as f64);
        }
        if row.ac_injected > 0 {
            injected.add(&[vm, id], row.ac_injected as f64);
        }
        if row.delay_ns > 0 {
            delay.add(&[vm, id], row.delay_ns as f64 / NANOSECONDS);
        }
        if let Some(time) = row.last_trap {
            last.add(&[vm, id], time);
        }
        for (reason, count) in &row.exits {
            exits.add(&[vm, id, reason], *count as f64);
        }
        for (reason, count) in &row.userspace_exits {
            userspace.add(&[vm, id, reason], *count as f64);
        }
    }
    vec![traps, injected, delay, last, exits, userspace]
}

fn agent(snapshot: &Snapshot) -> Vec<Series> {
    let mut probes = Series::of(&metrics::PROBE_ATTACHED);
    let mut missed = Series::of(&metrics::PROBE_MISSED);
    for probe in &snapshot.probes {
        if let Some(count) = probe.missed {
            missed.add(&[probe.probe], count as f64);
        }
        match probe.via {
            Some(via) => probes.add(&[probe.probe, via, probe.counts], 1.0),
            None => probes.add(&[probe.probe, "none", "none"], 0.0),
        }
    }
    let mut lost = Series::of(&metrics::LOST);
    for (cause, count) in &snapshot.lost {
        lost.add(&[cause], *count as f64);
    }
    let mut tracked = Series::of(&metrics::TRACKED);
    let mut limit = Series::of(&metrics::TRACKED_LIMIT);
    for (kind, fullness) in &snapshot.tracked {
        tracked.add(&[kind], fullness.used as f64);
        limit.add(&[kind], fullness.limit as f64);
    }
    let mut build = Series::of(&metrics::BUILD_INFO);
    build.add(
        &[
            env!("CARGO_PKG_VERSION"),
            env!("SPLITLOCK_REVISION"),
            env!("SPLITLOCK_RUST_VERSION"),
        ],
        1.0,
    );
    vec![probes, missed, lost, tracked, limit, build]
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
