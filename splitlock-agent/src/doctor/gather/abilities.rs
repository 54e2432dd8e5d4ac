//! What this kernel's own code can do about detection, told by its symbols rather than by its version:
//! distributions bring changes to older kernels.

use std::fs;

use super::super::facts::Abilities;
use crate::host::btf::Btf;

/// `None` where the kernel does not describe itself.
pub fn read() -> Option<Abilities> {
    let bytes = fs::read("/sys/kernel/btf/vmlinux").ok()?;
    Some(of(&Btf::parse(&bytes, None).ok()?))
}

fn of(btf: &Btf<'_>) -> Abilities {
    Abilities {
        // A timer of each CPU's own, as of c929d08df8be ("x86/split_lock: Fix the delayed detection
        // logic", 6.15 and some stable kernels); before, all of them shared one, and BTF has variables
        // per CPU only.
        rearms_each_core: btf.variable_id("sl_reenable").is_ok(),
        // Called for every CPU from 6.13 on ("x86/bus_lock: Add support for AMD"); before it was a
        // part of `init_intel` and inlined there (seen on 6.12).
        arms_all_makers: btf.function_id("bus_lock_init").is_ok(),
    }
}
