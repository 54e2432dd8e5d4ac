//! What the agent's processes give up once everything is attached, and what is left to them.
//!
//! The worker talks HTTP and keeps the table; it has what was opened before, and may open next to
//! nothing. The keeper and the readers that it starts may look into other processes, and do nothing
//! else. All of it belongs to a thread and is inherited: each function here wants to be called while
//! its caller is the only one.

pub mod credentials;
mod filter;
pub mod helpers;
pub mod separation;
pub mod user;
pub mod worker;
