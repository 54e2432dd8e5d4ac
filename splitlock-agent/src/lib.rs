//! splitlock-agent: who locks the bus of this host, how often, and what the kernel did about it.
//!
//! A pipeline whose stages are the modules, in the direction of the data:
//! [`host`] → [`probes`] → [`intake`] → [`subjects`] → [`table`] → [`export`].
//! [`detection`] says whether the host would notice at all. [`agent`] is the task that
//! runs it, [`start`] prepares it, [`run`] is the daemon around that. [`doctor`] examines the host,
//! and [`remote`] is how it, `top` and `selftest` ask an agent that runs.

pub mod agent;
pub mod cli;
pub mod code;
pub mod confine;
pub mod detection;
pub mod doctor;
pub mod export;
pub mod host;
pub mod intake;
pub mod keeper;
mod logging;
mod memory;
pub mod probes;
mod readiness;
pub mod remote;
pub mod run;
pub mod selftest;
pub mod service_manager;
pub mod start;
pub mod subjects;
pub mod table;
pub mod top;
