//! The agent's own memory.

/// What is larger has a mapping of its own, which goes when it is freed. glibc's first value, which
/// it raises up to 32 MiB as such are freed, unless it is set: a scrape's text would stay.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: libc::c_int = 128 * 1024;

/// Has all threads allocate from one heap, and large texts outside it; call it before there are any.
///
/// glibc gives each thread a heap of its own, and [`give_back`] cannot shorten any but the first
/// (`mtrim` in malloc/malloc.c leaves the others' top).
pub fn keep_one_heap() {
    // SAFETY: mallopt takes two numbers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
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
