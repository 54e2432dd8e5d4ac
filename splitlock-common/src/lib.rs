//! What the kernel side and the user side of splitlock-agent agree on.
//!
//! Pure and `no_std`: the taxonomy of traps, the rules that turn what a hook sees into an
//! event, the table of who counts what, the layout of the maps' keys, values and records, and
//! the decoding of VM exit reasons. Everything is a function of its arguments and is tested on
//! the host.
#![cfg_attr(not(test), no_std)]

pub mod authority;
pub mod classify;
pub mod exit_reason;
pub mod ledger;
pub mod loss;
pub mod mode;
pub mod record;
pub mod trap;

pub use authority::{Armed, EventSet, Hook, HookSet};
pub use loss::Loss;
pub use mode::Mode;
pub use trap::{Event, Lock, Origin, Outcome, Trap};
