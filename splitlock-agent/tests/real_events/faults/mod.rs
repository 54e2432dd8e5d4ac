//! Faults of the agent's surroundings, on any host: what was made is what is reported, or the loss
//! is counted.

mod clients;
mod descriptors;
mod full_disk;
mod killed;
mod stopped;

use super::Test;

pub const TESTS: &[&[Test]] = &[
    stopped::TESTS,
    descriptors::TESTS,
    full_disk::TESTS,
    killed::TESTS,
    clients::TESTS,
];
