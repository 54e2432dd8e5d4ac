//! The Prometheus text exposition of a snapshot.

mod agent;
mod host;
mod subjects;
mod text;
pub mod web;

use prometheus::{
    Encoder as _, TextEncoder, core::Collector as _, process_collector::ProcessCollector,
};

use self::text::Text;
use crate::table::snapshot::Snapshot;

/// `Content-Type` of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bytes that all families need which do not depend on subjects, and a little more.
const HOST_BYTES: usize = 32 * 1024;

/// Writes the exposition of a snapshot, with the agent's own `process_*` metrics.
///
/// # Errors
/// Never in practice: the encoder of the latter refuses families that their collector does not make.
pub fn encode(snapshot: &Snapshot, own: &ProcessCollector) -> prometheus::Result<Vec<u8>> {
    let mut bytes = families(snapshot).into_bytes();
    TextEncoder::new().encode(&own.collect(), &mut bytes)?;
    Ok(bytes)
}

/// The families of a snapshot.
fn families(snapshot: &Snapshot) -> Text {
    let mut text = Text::with_capacity(HOST_BYTES);
    host::write(snapshot, &mut text);
    subjects::write_workloads(&snapshot.workloads, &mut text);
    subjects::write_processes(&snapshot.processes, &mut text);
    subjects::write_vms(&snapshot.vms, &mut text);
    agent::write(snapshot, &mut text);
    text
}

#[cfg(test)]
pub(super) mod tests;
