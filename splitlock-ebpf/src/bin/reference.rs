//! What the exit ledger's programs are measured against: the least that a program on the same hook
//! can cost, and other ways to count. `cargo xtask bench` loads them; the agent does not.
#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, PerCpuHashMap},
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};

/// One counter of all CPUs: what not to do, as its cache line moves between them.
#[btf_map]
static SHARED: Array<u64, 1> = Array::new();

/// One counter per CPU.
#[btf_map]
static PER_CPU: PerCpuArray<u64, 1> = PerCpuArray::new();

/// A thread group and a reason.
#[derive(Clone, Copy)]
#[repr(C)]
struct Key {
    tgid: u32,
    reason: u32,
}

/// A table per CPU, whose memory grows with the number of CPUs.
#[btf_map]
static HASH: PerCpuHashMap<Key, u64, 10240> = PerCpuHashMap::new();

/// Nothing.
#[raw_tracepoint]
fn empty_raw(_ctx: RawTracePointContext) -> u32 {
    0
}

/// Nothing, behind a record. As the agent's do, it leaves the event to perf, which the kernel then
/// sees to; aya's attribute would give back 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "tracepoint")]
extern "C" fn empty_classic(_ctx: *mut core::ffi::c_void) -> u32 {
    1
}

/// An addition to one counter, without telling who and why.
#[raw_tracepoint]
fn array_raw(_ctx: RawTracePointContext) -> u32 {
    if let Some(counter) = SHARED.get_ptr_mut(0) {
        // SAFETY: a map value; two CPUs may lose an addition, which is not what is measured.
        unsafe { *counter += 1 };
    }
    0
}

/// The same per CPU.
#[raw_tracepoint]
fn per_cpu_array_raw(_ctx: RawTracePointContext) -> u32 {
    if let Some(counter) = PER_CPU.get_ptr_mut(0) {
        // SAFETY: a map value of this CPU.
        unsafe { *counter += 1 };
    }
    0
}

/// A hash per CPU on thread group and first argument.
#[raw_tracepoint]
fn hash_raw(ctx: RawTracePointContext) -> u32 {
    let key = Key {
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        reason: ctx.arg(0),
    };
    match HASH.get_ptr_mut(key) {
        // SAFETY: a map value of this CPU.
        Some(counter) => unsafe { *counter += 1 },
        None => {
            // Full is not what is measured.
            let _ = HASH.insert(key, 1, 0);
        }
    }
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: the programs have no panicking path, or the verifier would refuse them.
    loop {}
}
