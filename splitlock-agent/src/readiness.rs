//! Waiting until a file descriptor can be read.

use std::{io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers `source` with the runtime; call it inside one.
///
/// For types that own one descriptor from their making to their end, as all of this crate's
/// sources do: files, pidfds and ring buffers.
pub(crate) fn readable<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    try_readable(source).map_err(|(_, error)| error)
}

fn try_readable<T: AsRawFd>(source: T) -> Result<AsyncFd<T>, (T, io::Error)> {
    // SAFETY: the sources own their descriptor and keep it as long as they live, see above.
    unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }
        .map_err(|error| error.into_parts())
}

/// A source that is opened before there is a runtime, and waited for in one: what root's rights open is
/// opened while the process has one thread, before they are given up.
pub(crate) struct Source<T: AsRawFd>(Option<State<T>>);

enum State<T: AsRawFd> {
    Open(T),
    Registered(AsyncFd<T>),
}

impl<T: AsRawFd> Source<T> {
    /// Needs no runtime.
    pub(crate) const fn new(source: T) -> Self {
        Self(Some(State::Open(source)))
    }

    /// What is waited for.
    pub(crate) fn get(&self) -> io::Result<&T> {
        match &self.0 {
            Some(State::Open(source)) => Ok(source),
            Some(State::Registered(source)) => Ok(source.get_ref()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// To be waited for, in a runtime; registers it there at the first call.
    pub(crate) fn registered(&mut self) -> io::Result<&mut AsyncFd<T>> {
        let state = match self.0.take() {
            Some(State::Open(source)) => match try_readable(source) {
                Ok(registered) => State::Registered(registered),
                Err((source, error)) => {
                    self.0 = Some(State::Open(source));
                    return Err(error);
                }
            },
            Some(registered) => registered,
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        match self.0.insert(state) {
            State::Registered(source) => Ok(source),
            State::Open(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
