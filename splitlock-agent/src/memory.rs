//! The agent's own memory.

/// Has all threads allocate from one heap; call it before there are any.
///
/// glibc gives each thread a heap of its own, and [`give_back`] cannot shorten any but the first
/// (`mtrim` in malloc/malloc.c leaves the others' top).
pub fn keep_one_heap() {
    // SAFETY: mallopt takes two numbers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the kernel, which the allocator keeps in the middle of its heap.
pub fn give_back() {
    // SAFETY: malloc_trim may be called at any time, from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
