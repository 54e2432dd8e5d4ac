//! Real split locks: a LOCKed access across the border of two cache lines.

use std::{arch::asm, cell::UnsafeCell};

/// Two cache lines.
#[repr(align(64))]
struct Lines(UnsafeCell<[u8; 128]>);

// SAFETY: nothing reads or writes it but the locked instruction below, which is atomic.
unsafe impl Sync for Lines {}

static LINES: Lines = Lines(UnsafeCell::new([0; 128]));

/// Adds 1 to a u32, two bytes of which are in one cache line and two in the next, with LOCK.
///
/// Where detection is fatal, the process gets SIGBUS, and survives it with the handler of
/// [`super::sigbus`] that goes on at the address in R10: `#AC` comes before the instruction, `#DB`
/// after it.
pub fn locked_add() {
    // SAFETY: the instruction writes 4 of the 128 bytes. The signal handler goes on at label 3, as
    // R10 tells it, and changes no register but RIP and EFLAGS.
    unsafe {
        asm!(
            "lea r10, [rip + 3f]",
            "lock add dword ptr [{split}], 1",
            "3:",
            split = in(reg) LINES.0.get().cast::<u8>().add(62),
            out("r10") _,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operand_is_in_two_lines() {
        let start = LINES.0.get().addr();
        assert_eq!(start % 64, 0);
        assert_eq!((start + 62) / 64 + 1, (start + 65) / 64);
    }
}
