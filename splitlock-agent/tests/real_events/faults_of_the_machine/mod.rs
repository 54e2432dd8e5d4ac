//! The machine changes under the agent: CPUs go, modules come, clocks jump, it sleeps. What was made
//! is what is reported all the same. In VMs of their own, as no other test could run beside these.

pub mod clock;
pub mod cpus;
pub mod hidden_proc;
pub mod kvm_module;
pub mod memory;
pub mod sleep;
pub mod tracefs;
mod work;

use super::Test;

/// All of them, one after the other.
pub const TESTS: [&[Test]; 7] = [
    cpus::TESTS,
    tracefs::TESTS,
    clock::TESTS,
    hidden_proc::TESTS,
    memory::TESTS,
    kvm_module::TESTS,
    sleep::TESTS,
];
