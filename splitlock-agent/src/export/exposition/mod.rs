//! The Prometheus text exposition of a snapshot.

mod host;
mod series;
mod subjects;

use prometheus::{
    Encoder as _, TextEncoder, core::Collector as _, process_collector::ProcessCollector,
    proto::MetricFamily,
};

use self::series::Series;
use super::metrics;
use crate::table::snapshot::Snapshot;

/// `Content-Type` of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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
    host::series(snapshot).into_iter().for_each(&mut add);
    subjects::workloads(&snapshot.workloads)
        .into_iter()
        .for_each(&mut add);
    subjects::processes(&snapshot.processes)
        .into_iter()
        .for_each(&mut add);
    subjects::vms(&snapshot.vms).into_iter().for_each(&mut add);
    agent(snapshot).into_iter().for_each(&mut add);
    families
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
    let mut ledgers = Series::of(&metrics::LEDGER);
    let mut ledgers_limit = Series::of(&metrics::LEDGER_LIMIT);
    for (ledger, fullness) in &snapshot.ledgers {
        ledgers.add(&[ledger], fullness.used as f64);
        ledgers_limit.add(&[ledger], fullness.limit as f64);
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
    vec![
        probes,
        missed,
        lost,
        tracked,
        limit,
        ledgers,
        ledgers_limit,
        build,
    ]
}

#[cfg(test)]
mod tests;
