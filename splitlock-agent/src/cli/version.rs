//! What `--version` says.

/// The version, what it was built from, and what it needs of the kernel.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nrevision: ",
    env!("SPLITLOCK_REVISION"),
    "\nrustc: ",
    env!("SPLITLOCK_RUST_VERSION"),
    "\nkernel side: embedded BPF programs (Dual MIT/GPL) for x86-64 Linux 5.10 or later with BTF",
);
