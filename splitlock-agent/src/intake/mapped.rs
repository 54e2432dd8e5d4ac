//! A BPF array map in the agent's memory. Reading it is no system call, which matters beyond its
//! cost: the kernel runs no kprobe's or classic tracepoint's program on a CPU whose task is inside
//! `bpf(2)` with a map's value (`bpf_disable_instrumentation`).

use std::{io, marker::PhantomData, os::fd::AsFd, ptr::NonNull};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// The mapped elements. The kernel side writes them at any time, so every access is volatile.
pub struct Mapped<T> {
    elements: NonNull<T>,
    count: usize,
    len: usize,
    _type: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps the array behind `fd`, which has `count` elements of this type. Its elements are at
    /// multiples of 8 bytes, and so is the size of `T`.
    pub fn map(fd: impl AsFd, count: u32) -> io::Result<Self> {
        Self::map_part(fd, 0, count)
    }

    /// Maps `count` elements of the array behind `fd` from the element `first` on, which begins a
    /// page. The kernel fills in all pages at once, and they count as this process's memory.
    pub fn map_part(fd: impl AsFd, first: u32, count: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let count = count as usize;
        let len = (count * size_of::<T>()).next_multiple_of(page_size());
        let offset = u64::from(first) * size_of::<T>() as u64;
        // SAFETY: a new mapping of the kernel's choice of address.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                offset,
            )
        }?;
        let elements = NonNull::new(address.cast())
            .ok_or_else(|| io::Error::other("mmap returned the null address"))?;
        Ok(Self {
            elements,
            count,
            len,
            _type: PhantomData,
        })
    }

    /// Address of an element, valid as long as this value lives.
    pub fn get(&self, index: u32) -> Option<*mut T> {
        let index = usize::try_from(index)
            .ok()
            .filter(|index| *index < self.count)?;
        // SAFETY: in bounds of the mapping.
        Some(unsafe { self.elements.add(index) }.as_ptr())
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping, which nothing refers to any more.
        let _ = unsafe { munmap(self.elements.as_ptr().cast(), self.len) };
    }
}
