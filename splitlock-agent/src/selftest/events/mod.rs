//! Makers of real events. The project's tests make theirs of the same.

pub mod alignment_check;
pub mod kvm_guest;
mod results;
pub mod sigbus;
pub mod split_lock;

pub use results::Results;
