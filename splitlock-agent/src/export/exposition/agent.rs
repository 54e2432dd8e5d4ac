//! The agent's own series: its hooks, its losses, how full everything is.

use super::text::Text;
use crate::{
    export::metrics,
    table::snapshot::{ProbeRow, ProbeRuns, Snapshot},
};

const NANOSECONDS: f64 = 1e9;

/// All of them.
pub fn write(snapshot: &Snapshot, text: &mut Text) {
    let mut attached = text.family(&metrics::PROBE_ATTACHED);
    for ProbeRow {
        probe, via, counts, ..
    } in &snapshot.probes
    {
        match via {
            Some(via) => attached.add(&[probe, via, counts], 1),
            None => attached.add(&[probe, &"none", &"none"], 0),
        }
    }
    let mut detached = text.family(&metrics::PROBE_DETACHED);
    for row in &snapshot.probes {
        if let Some(reason) = row.detached {
            detached.add(&[&row.probe, &reason], 1);
        }
    }
    let mut missed = text.family(&metrics::PROBE_MISSED);
    for row in &snapshot.probes {
        if let Some(count) = row.missed {
            missed.add(&[&row.probe], count);
        }
    }
    let mut runs = text.family(&metrics::PROBE_RUNS);
    for (probe, count) in of_statistics(snapshot) {
        runs.add(&[&probe], count.runs);
    }
    let mut seconds = text.family(&metrics::PROBE_RUN_SECONDS);
    for (probe, count) in of_statistics(snapshot) {
        seconds.add(&[&probe], count.nanoseconds as f64 / NANOSECONDS);
    }
    let mut lost = text.family(&metrics::LOST);
    for (cause, count) in &snapshot.lost {
        lost.add(&[cause], count);
    }
    for (family, limits, fullness) in [
        (
            &metrics::TRACKED,
            &metrics::TRACKED_LIMIT,
            &snapshot.tracked,
        ),
        (&metrics::LEDGER, &metrics::LEDGER_LIMIT, &snapshot.ledgers),
    ] {
        let mut used = text.family(family);
        for (kind, fullness) in fullness {
            used.add(&[kind], fullness.used);
        }
        let mut limit = text.family(limits);
        for (kind, fullness) in fullness {
            limit.add(&[kind], fullness.limit);
        }
    }
    if let Some(ring) = &snapshot.record_ring {
        for (family, bytes) in [
            (&metrics::RECORD_RING_USED, ring.used_bytes),
            (&metrics::RECORD_RING_PEAK, ring.peak_bytes),
            (&metrics::RECORD_RING_SIZE, ring.size_bytes),
        ] {
            text.family(family).add(&[], bytes);
        }
    }
    let privileges = &snapshot.privileges;
    text.family(&metrics::PRIVILEGES).add(
        &[
            &privileges.user,
            &privileges.capabilities,
            &privileges.landlock,
            &u8::from(privileges.seccomp),
        ],
        1,
    );
    let mut up = text.family(&metrics::HELPER_UP);
    for row in &privileges.helpers {
        up.add(&[&row.helper], u8::from(row.up));
    }
    let mut deaths = text.family(&metrics::HELPER_DEATHS);
    for row in &privileges.helpers {
        deaths.add(&[&row.helper], row.deaths);
    }
    text.family(&metrics::BUILD_INFO).add(
        &[
            &env!("CARGO_PKG_VERSION"),
            &env!("SPLITLOCK_REVISION"),
            &env!("SPLITLOCK_RUST_VERSION"),
        ],
        1,
    );
}

fn of_statistics(snapshot: &Snapshot) -> impl Iterator<Item = (&'static str, ProbeRuns)> {
    snapshot
        .probes
        .iter()
        .filter_map(|row| Some((row.probe, row.runs?)))
}
