//! Reading a word of kernel memory for the agent, which runs this program by `BPF_PROG_TEST_RUN`.
//! It is attached to nothing.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::task::read;

/// What is returned for an address that cannot be read.
const UNREADABLE: u32 = u32::MAX;

/// The 32-bit word at the address in the first argument.
#[raw_tracepoint]
pub fn read_word(ctx: RawTracePointContext) -> u32 {
    read(ctx.arg(0), 0).unwrap_or(UNREADABLE)
}
