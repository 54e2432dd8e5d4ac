//! The host's series: its totals, its detection, its kernel log.

use splitlock_common::Mode;

use super::text::Text;
use crate::{
    export::metrics,
    table::snapshot::{Snapshot, TrapCount},
};

/// All of them.
pub fn write(snapshot: &Snapshot, text: &mut Text) {
    let mut traps = text.family(&metrics::HOST_TRAPS);
    for TrapCount {
        origin,
        trap,
        outcome,
        count,
    } in &snapshot.host_traps
    {
        traps.add(&[origin, trap, outcome], count);
    }
    let mut overflow = text.family(&metrics::OVERFLOW_TRAPS);
    for (kind, count) in &snapshot.overflow_traps {
        overflow.add(&[kind], count);
    }
    let mut subjects = text.family(&metrics::OVERFLOW_SUBJECTS);
    for (kind, count) in &snapshot.overflow_subjects {
        subjects.add(&[kind], count);
    }
    let mut mode = text.family(&metrics::DETECTION_MODE);
    for known in Mode::ALL {
        let is_it = known.name() == snapshot.host.detection_mode;
        mode.add(&[&known.name()], u8::from(is_it));
    }
    text.family(&metrics::DETECTION_SOURCE)
        .add(&[&snapshot.host.detection_source], 1);
    let mut sees = text.family(&metrics::SEES);
    for (origin, sees_it) in &snapshot.host.sees {
        sees.add(&[origin], u8::from(*sees_it));
    }
    text.family(&metrics::DETECTION_CHANGES)
        .add(&[], snapshot.host.changes);
    let mut features = text.family(&metrics::CPU_FEATURE);
    for (feature, has) in &snapshot.host.cpu_features {
        features.add(&[feature], u8::from(*has));
    }
    if let Some(enabled) = snapshot.host.mitigation {
        text.family(&metrics::MITIGATION_ENABLED)
            .add(&[], u8::from(enabled));
    }
    let mut reports = text.family(&metrics::KERNEL_LOG_REPORTS);
    for (trap, count) in &snapshot.kernel_log_reports {
        reports.add(&[trap], count);
    }
    let mut history = text.family(&metrics::KERNEL_LOG_HISTORY);
    for (trap, count) in snapshot.kernel_log_history.iter().flatten() {
        history.add(&[trap], count);
    }
}
