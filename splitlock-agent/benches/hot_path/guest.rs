//! The guest of the tests, for its exits.

use anyhow::{Result, ensure};

#[path = "../../tests/real_events/events/kvm_guest.rs"]
mod kvm_guest;
#[path = "../../tests/real_events/events/results.rs"]
mod results;

use results::{Results, share};

/// Why no guest can run here.
pub fn available() -> Result<(), String> {
    kvm_guest::kvm_available()
}

/// Runs a VM of one vCPU that writes to a port `count` times: each is an exit and a return to the
/// VMM.
pub fn write_to_port(count: u64) -> Result<()> {
    let results = kvm_guest::make(kvm_guest::Guest::PortIo, count, 1)?;
    ensure!(results.get("io") == count, "the guest made {results}");
    Ok(())
}
