//! The ring buffer: the story of single events.

use std::io;

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Map, RingBuf},
};
use splitlock_common::record::{Record, Sight, UserRecord};

use super::ring_use::RingUse;
use crate::readiness::Source;

/// One record, and what was seen of the instruction, where it was a process's own.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// What all records have.
    pub record: Record,
    /// What was seen.
    pub sight: Option<Sight>,
}

impl Told {
    /// Reads an item of the ring buffer; `None` for one of a length that neither kind has.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if let Some(UserRecord { record, sight }) = UserRecord::from_bytes(bytes) {
            return Some(Self {
                record,
                sight: Some(sight),
            });
        }
        Record::from_bytes(bytes).map(|record| Self {
            record,
            sight: None,
        })
    }
}

/// The reader of the ring buffer.
pub struct Records {
    ring: Source<RingBuf<aya::maps::MapData>>,
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
        let ring = Source::new(RingBuf::try_from(map)?);
        Ok(Self {
            ring,
            waiting,
            peak: 0,
        })
    }

    /// Waits until there are records and puts all that are there into `records`.
    pub async fn next(&mut self, records: &mut Vec<Told>) -> io::Result<()> {
        let mut ready = self.ring.registered()?.readable_mut().await?;
        self.peak = self.peak.max(self.waiting.bytes());
        let ring = ready.get_inner_mut();
        while let Some(item) = ring.next() {
            // An item of another length cannot be: both sides share the types.
            records.extend(Told::from_bytes(&item));
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
