//! The eBPF programs of splitlock-agent, one file per hook family.
//!
//! An entry (`enter_…`) only unpacks its context and notes a failure; the work is in `try_…`
//! functions and, where it can be tested on the host, in `splitlock-common`.
#![no_std]
#![no_main]
// The atomic addition of `trap_ledger`, and what the verifier must see in `exit_ledger` and
// `trace_record`.
#![feature(asm_experimental_arch)]

mod classic;
mod config;
mod exit_ledger;
mod kvm;
mod kvm_exit;
mod maps;
mod memory;
mod record;
mod sight;
mod signal;
mod split_lock;
mod task;
mod trace_record;
mod trap_ledger;

/// What all other probes give back; it means nothing to anybody.
const DONE: u32 = 0;

/// Helpers such as `bpf_probe_read_kernel` are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: the programs have no panicking path, or the verifier would refuse them.
    loop {}
}
