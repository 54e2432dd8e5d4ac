//! Showing one snapshot: as an exposition for Prometheus, as JSON, as a page.

pub mod event_log;
pub mod exposition;
pub mod metrics;
pub mod page;
pub mod server;
pub mod web_config;
