//! Waiting until a file descriptor can be read.

use std::{io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers `source` with the runtime; call it inside one.
///
/// For types that own one descriptor from their making to their end, as all of this crate's
/// sources do: files, pidfds and ring buffers.
pub(crate) fn readable<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the sources own their descriptor and keep it as long as they live, see above.
    unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }.map_err(Into::into)
}
