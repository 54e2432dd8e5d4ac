//! The guest of the tests, for its exits.

use anyhow::{Result, ensure};

#[expect(dead_code, reason = "the tests use more of it")]
#[expect(unused_imports, reason = "the tests use more of it")]
#[path = "../../tests/real_events/events/mod.rs"]
mod events;

use events::kvm_guest;

/// Why no guest can run here.
pub fn available() -> Result<(), String> {
    splitlock_agent::selftest::events::kvm_guest::available()
}

/// Runs a VM of one vCPU that writes to a port `count` times: each is an exit and a return to the
/// VMM.
pub fn write_to_port(count: u64) -> Result<()> {
    let results = kvm_guest::make(kvm_guest::Guest::PortIo, count, 1)?;
    ensure!(results.get("io") == count, "the guest made {results}");
    Ok(())
}
