//! What is to be seen of a trapped instruction while its process lives: code, registers, file.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_USER_BUILD_ID, BPF_F_USER_STACK},
    helpers::generated::{bpf_get_stack, bpf_probe_read_kernel, bpf_probe_read_user},
};
use splitlock_common::record::{CODE_BYTES, InFile, SAW_AT, SAW_BEFORE, SAW_REGISTERS, Sight};

use crate::task::saved_registers;

/// Looks at the instruction at `ip` of the current task. What cannot be read is zero, by the helpers,
/// which clear their room when they fail.
///
/// # Safety
/// `sight` is valid for writes; it need not be initialised.
#[inline(always)]
pub unsafe fn see(ctx: &impl EbpfContext, sight: *mut Sight, ip: u64) {
    const CODE: u32 = CODE_BYTES as u32;
    // SAFETY: the destinations are fields of `sight`, of the sizes given; the helpers check the
    // sources themselves.
    unsafe {
        let before = bpf_probe_read_user(
            (&raw mut (*sight).before).cast(),
            CODE,
            ip.wrapping_sub(CODE_BYTES as u64) as *const c_void,
        );
        let at = bpf_probe_read_user((&raw mut (*sight).at).cast(), CODE, ip as *const c_void);
        let registers = bpf_probe_read_kernel(
            (&raw mut (*sight).pt_regs).cast(),
            size_of_val(&(*sight).pt_regs) as u32,
            saved_registers().unwrap_or(0) as *const c_void,
        );
        // The helper leaves its room as it was where programs interrupt each other too often
        // (`get_bpf_raw_tp_regs`, kernel/trace/bpf_trace.c): it may hold an older record's.
        (*sight).in_file = InFile::UNKNOWN;
        // One frame of the user's stack, which begins with the instruction.
        bpf_get_stack(
            ctx.as_ptr(),
            (&raw mut (*sight).in_file).cast(),
            size_of_val(&(*sight).in_file) as u32,
            u64::from(BPF_F_USER_STACK | BPF_F_USER_BUILD_ID),
        );
        (*sight).seen = u64::from(before == 0) * SAW_BEFORE
            + u64::from(at == 0) * SAW_AT
            + u64::from(registers == 0) * SAW_REGISTERS;
    }
}
