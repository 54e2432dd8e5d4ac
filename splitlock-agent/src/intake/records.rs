//! The ring buffer: the story of single events.

use std::io;

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Map, RingBuf},
};
use splitlock_common::record::Record;
use tokio::io::unix::AsyncFd;

use super::ring_use::RingUse;
use crate::readiness::readable;

/// The reader of the ring buffer.
pub struct Records {
    ring: AsyncFd<RingBuf<aya::maps::MapData>>,
    waiting: RingUse,
    peak: u64,
}

impl Records {
    /// Takes the ring buffer over.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let map = ebpf
            .take_map("RECORDS")
            .context("the BPF object has no map RECORDS")?;
        let Map::RingBuf(data) = &map else {
            bail!("RECORDS is no ring buffer");
        };
        let waiting = RingUse::map(data.fd()).context("mapping the positions of RECORDS")?;
        let ring = readable(RingBuf::try_from(map)?).context("waiting for the ring buffer")?;
        Ok(Self {
            ring,
            waiting,
            peak: 0,
        })
    }

    /// Waits until there are records and puts all that are there into `records`.
    pub async fn next(&mut self, records: &mut Vec<Record>) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        self.peak = self.peak.max(self.waiting.bytes());
        let ring = ready.get_inner_mut();
        while let Some(item) = ring.next() {
            // An item of another length cannot be: both sides share the type.
            records.extend(Record::from_bytes(&item));
        }
        ready.clear_ready();
        Ok(())
    }

    /// Bytes that wait now.
    pub fn waiting(&self) -> u64 {
        self.waiting.bytes()
    }

    /// The most bytes that waited when records were read.
    pub const fn peak(&self) -> u64 {
        self.peak
    }
}
