//! Fields of a classic tracepoint's record, at offsets that the agent took from its `format` file.

use aya_ebpf::EbpfContext;

use crate::task::read;

/// Reads a field of 32 bits.
///
/// A load from the record is one instruction, but the verifier wants its offset written there, not
/// in a register. So there is a load for each offset that kernels have used; it knows the agent's
/// choice and drops the others. Elsewhere a helper copies the field, for about 15 ns.
#[inline(always)]
pub fn read_u32(ctx: &impl EbpfContext, offset: u32) -> Result<u32, i32> {
    macro_rules! loads {
        ($($known:literal)*) => {
            match offset {
                $($known => {
                    let value: u64;
                    // SAFETY: a load from the context, in bounds of what the verifier allows.
                    // Assembly, as the compiler would make one load at a computed offset of all.
                    unsafe {
                        core::arch::asm!(
                            "{value} = *(u32 *)({ctx} + {offset})",
                            value = out(reg) value,
                            ctx = in(reg) ctx.as_ptr(),
                            offset = const $known,
                            options(nostack, readonly, preserves_flags)
                        );
                    }
                    return Ok(value as u32);
                })*
                _ => {}
            }
        };
    }
    loads!(8 12 16 20 24 28 48 56 64);
    read(ctx.as_ptr() as u64, offset)
}
