//! Programs on classic tracepoints.
//!
//! They share the tracepoint with perf: where one of them gives back 0, the kernel keeps the event
//! from everybody's perf, whose counters and samples would stand still as long as the agent runs
//! (`perf_trace_run_bpf_submit`,
//! [kernel/events/core.c](https://github.com/torvalds/linux/blob/v6.18/kernel/events/core.c)).
//! aya's attribute gives back 0 whatever the function does, so the entries are made here.

/// Lets perf see the event too.
pub const PASS_ON: u32 = 1;

/// The entry of a program on a classic tracepoint; what it runs takes the context and may lose the
/// event.
macro_rules! classic_tracepoint {
    ($(#[$doc:meta])* $entry:ident, $section:literal, $try:ident) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[unsafe(link_section = $section)]
        pub fn $entry(ctx: *mut ::core::ffi::c_void) -> u32 {
            let ctx = ::aya_ebpf::programs::TracePointContext::new(ctx);
            $try(&ctx).unwrap_or_else($crate::trap_ledger::lost);
            $crate::classic::PASS_ON
        }
    };
}
pub(crate) use classic_tracepoint;
