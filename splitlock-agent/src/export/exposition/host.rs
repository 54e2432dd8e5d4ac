//! The host's series: its totals, its detection, its kernel log.

use splitlock_common::Mode;

use super::series::Series;
use crate::{
    export::metrics,
    table::snapshot::{Snapshot, TrapCount},
};

/// All of them.
pub fn series(snapshot: &Snapshot) -> Vec<Series> {
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
