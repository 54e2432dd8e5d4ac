//! Asking a resolver, one question after the other.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use super::{
    Keeper, Kind, Process,
    resolver::{Reply, Request},
};
use crate::subjects::{
    identity::{Identity, Question},
    vm_search::{FoundVm, Look},
};

/// Bytes of the longest answer: a host of thousands of VMs.
const LINE_LIMIT: u64 = 16 << 20;

/// With one process, which ends with this.
#[derive(Debug)]
pub struct Conversation {
    process: Process,
    stream: BufReader<UnixStream>,
}

impl Conversation {
    /// Begins one.
    ///
    /// # Errors
    /// There can be no process.
    pub fn begin(keeper: &Arc<Keeper>) -> io::Result<Self> {
        let (process, stream) = keeper.start_process(Kind::Resolver)?;
        Ok(Self {
            process,
            stream: BufReader::new(stream),
        })
    }

    /// Has this be held until the process has ended.
    pub fn hold(&self, held: Arc<()>) {
        self.process.hold(held);
    }

    /// Who is it?
    ///
    /// # Errors
    /// The process died, or talks nonsense.
    pub async fn who(&mut self, question: Question) -> io::Result<Identity> {
        let subject = question.subject;
        match self.ask(&Request::Who(question)).await? {
            Reply::Identity(identity) if identity.subject == subject => Ok(*identity),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Who has a VM?
    ///
    /// # Errors
    /// As for [`Self::who`].
    pub async fn vms(&mut self, look: Look) -> io::Result<Vec<FoundVm>> {
        match self.ask(&Request::Vms(look)).await? {
            Reply::Found(found) => Ok(found),
            Reply::Identity(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Waits until the process, which nobody asks anything, has died.
    pub async fn is_over(&mut self) {
        // It says nothing unasked.
        let _ = self.stream.fill_buf().await;
    }

    async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await?;
        line.clear();
        let mut limited = (&mut self.stream).take(LINE_LIMIT);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}
