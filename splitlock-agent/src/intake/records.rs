//! The ring buffer: the story of single events.

use std::io;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use splitlock_common::record::Record;
use tokio::io::unix::AsyncFd;

use crate::readiness::readable;

/// The reader of the ring buffer.
pub struct Records {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Records {
    /// Takes the ring buffer over.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let ring: RingBuf<MapData> = ebpf
            .take_map("RECORDS")
            .context("the BPF object has no map RECORDS")?
            .try_into()?;
        let ring = readable(ring).context("waiting for the ring buffer")?;
        Ok(Self { ring })
    }

    /// Waits until there are records and puts all that are there into `records`.
    pub async fn next(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        let ring = ready.get_inner_mut();
        while let Some(item) = ring.next() {
            // An item of another length cannot be: both sides share the type.
            records.extend(Record::from_bytes(&item));
        }
        ready.clear_ready();
        Ok(())
    }
}
