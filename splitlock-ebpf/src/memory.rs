//! Reading a word of kernel memory for the agent, which runs this program by `BPF_PROG_TEST_RUN`.
//! It is attached to nothing.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use splitlock_common::ledger::Word;

use crate::{DONE, maps::WORD, task::read};

/// Reads the 32-bit word at the address in the first argument.
#[raw_tracepoint]
pub fn read_word(ctx: RawTracePointContext) -> u32 {
    let word = match read(ctx.arg(0), 0) {
        Ok(value) => Word { value, is_read: 1 },
        Err(_errno) => Word::default(),
    };
    // Setting the one element of an array does not fail.
    let _ = WORD.set(0, word, 0);
    DONE
}
