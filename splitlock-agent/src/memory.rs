//! The agent's own memory.

/// Gives free memory back to the kernel, which the allocator keeps in the middle of its heaps.
pub fn give_back() {
    // SAFETY: malloc_trim may be called at any time, from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
