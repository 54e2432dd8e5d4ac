//! Reading what the kernel side counted and told. Knows nothing of who a subject is.

mod batch;
pub mod exit_rows;
pub mod kernel_log;
pub mod ledgers;
pub mod mapped;
pub mod records;
mod ring_use;
pub mod vcpus;
