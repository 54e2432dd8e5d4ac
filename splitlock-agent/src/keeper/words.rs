//! What the worker and the keeper say to each other: packets of a kind and a number.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// What a process looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Who processes are, and which have VMs.
    Resolver,
    /// What is at addresses.
    Symbolizer,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// To the keeper: start a process of this kind and number, for the socket that comes along.
    Start(Kind, u64),
    /// To the keeper: end it.
    End(u64),
    /// To the worker: it has ended.
    Ended(u64),
    /// To the worker: the keeper is there, and could not give up so many things, which the packets
    /// behind tell in words.
    Ready(u64),
}

/// Bytes of the longest packet: a sentence.
const PACKET: usize = 512;

impl Word {
    fn bytes(self) -> [u8; 9] {
        let (tag, number) = match self {
            Self::Start(Kind::Resolver, id) => (b'r', id),
            Self::Start(Kind::Symbolizer, id) => (b's', id),
            Self::End(id) => (b'k', id),
            Self::Ended(id) => (b'e', id),
            Self::Ready(count) => (b'R', count),
        };
        let mut bytes = [tag; 9];
        bytes[1..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (tag, number) = bytes.split_first()?;
        let number = u64::from_le_bytes(number.try_into().ok()?);
        Some(match tag {
            b'r' => Self::Start(Kind::Resolver, number),
            b's' => Self::Start(Kind::Symbolizer, number),
            b'k' => Self::End(number),
            b'e' => Self::Ended(number),
            b'R' => Self::Ready(number),
            _ => return None,
        })
    }

    /// Says it.
    ///
    /// # Errors
    /// The other side has gone, or does not listen.
    pub fn send(self, socket: impl AsFd, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let with = with.as_slice();
        if !with.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(with));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(
            socket,
            &[IoSlice::new(&self.bytes())],
            &mut ancillary,
            flags,
        )?;
        Ok(())
    }
}

/// What was heard.
#[derive(Debug)]
pub struct Heard {
    /// The word; `None` for one that nobody knows.
    pub word: Option<Word>,
    /// The socket that came along.
    pub with: Option<OwnedFd>,
}

/// Hears a word; `None` when the other side has gone.
///
/// # Errors
/// The socket cannot be read, or, where it does not wait, nothing is there yet.
pub fn hear(socket: impl AsFd) -> io::Result<Option<Heard>> {
    let mut bytes = [0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let with = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok(Some(Heard {
        word: Word::of(&bytes[..received.bytes]),
        with,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for word in [
            Word::Start(Kind::Resolver, 7),
            Word::Start(Kind::Symbolizer, u64::MAX),
            Word::End(0),
            Word::Ended(1 << 40),
            Word::Ready(2),
        ] {
            assert_eq!(Word::of(&word.bytes()), Some(word));
        }
    }

    #[test]
    fn fuzz_keeper_word() {
        bolero::check!(name = "keeper_word").for_each(|bytes: &[u8]| {
            if let Some(word) = Word::of(bytes) {
                assert_eq!(word.bytes(), bytes);
            }
        });
    }
}
