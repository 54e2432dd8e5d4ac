//! Alignment checks: `#AC` by a misaligned load with EFLAGS.AC set, which is no split lock.

use std::arch::asm;

use super::sigbus::EFLAGS_AC;

/// A load of a u32 from an odd address, within one cache line, with EFLAGS.AC set.
///
/// Where the CPU raises `#AC`, the process gets SIGBUS, and survives it with the handler of
/// [`super::sigbus`] that goes on at the address in R10.
pub fn misaligned_load() {
    #[repr(align(64))]
    struct CacheLine([u8; 64]);
    static LINE: CacheLine = CacheLine([0; 64]);

    // SAFETY: the load reads 4 bytes inside LINE. The pushes are balanced and the stack pointer is
    // as before at the end; without `nostack` there is no red zone that they could overwrite.
    // EFLAGS.AC is set only from one popfq to the other, where no compiled code runs. The signal
    // handler goes on at label 3, as R10 tells it, and changes no register but RIP and EFLAGS.
    unsafe {
        asm!(
            "lea r10, [rip + 3f]",
            "pushfq",
            "or qword ptr [rsp], {set}",
            "popfq",
            "mov {value:e}, dword ptr [{odd}]",
            "3:",
            "pushfq",
            "and qword ptr [rsp], {clear}",
            "popfq",
            set = const EFLAGS_AC,
            clear = const !EFLAGS_AC,
            odd = in(reg) &raw const LINE.0[1],
            value = out(reg) _,
            out("r10") _,
        );
    }
}
