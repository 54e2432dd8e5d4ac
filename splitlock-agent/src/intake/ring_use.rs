//! How full a ring buffer is, by the positions that the kernel shows in front of its data.

use std::{io, os::fd::AsFd, ptr, ptr::NonNull};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// The two pages with the positions, the reader's first and then the writers'
/// (`struct bpf_ringbuf`, kernel/bpf/ringbuf.c).
const PAGES: usize = 2;

/// The mapped positions of a ring buffer.
pub struct RingUse {
    pages: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for RingUse {}

impl RingUse {
    /// Maps the positions of the ring buffer behind `fd`.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn map(fd: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping of the kernel's choice of address. The kernel lets nobody write to the
        // writers' position.
        let address = unsafe {
            mmap(
                ptr::null_mut(),
                PAGES * page_size(),
                ProtFlags::READ,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let pages = NonNull::new(address.cast())
            .ok_or_else(|| io::Error::other("mmap returned the null address"))?;
        Ok(Self { pages })
    }

    /// Bytes that wait to be read.
    pub fn bytes(&self) -> u64 {
        // The reader's first: it only goes towards the writers'.
        let read = self.position(0);
        self.position(1).saturating_sub(read)
    }

    fn position(&self, page: usize) -> u64 {
        // SAFETY: the mapping has both pages, each begins with an aligned `unsigned long`, and the
        // kernel writes it whole.
        unsafe {
            self.pages
                .add(page * page_size())
                .cast::<u64>()
                .read_volatile()
        }
    }
}

impl Drop for RingUse {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping, which nothing refers to any more.
        let _ = unsafe { munmap(self.pages.as_ptr().cast(), PAGES * page_size()) };
    }
}
