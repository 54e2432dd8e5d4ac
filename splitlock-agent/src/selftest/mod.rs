//! `selftest`.

pub mod events;
