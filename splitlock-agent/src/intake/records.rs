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

#[cfg(test)]
mod tests {
    use splitlock_common::{Event, Hook, record::PT_REGS_WORDS};

    use super::*;
    use crate::{
        code::Code, export::event_log::Line, subjects::names::printable, table::sites::Sites,
    };

    fn is_printable(text: &str) -> bool {
        text == printable(text.as_bytes())
    }

    /// Bytes of the ring buffer on all their way. The first says which kind of record they are; the
    /// numbers of event and hook are mostly ones that exist.
    #[test]
    fn fuzz_ring_record() {
        bolero::check!(name = "ring_record").for_each(|input: &[u8]| {
            let _ = Told::from_bytes(input);
            let Some((kind, rest)) = input.split_first() else {
                return;
            };
            let size = if kind % 2 == 0 {
                size_of::<Record>()
            } else {
                size_of::<UserRecord>()
            };
            let mut bytes = rest.to_vec();
            bytes.resize(size, *kind);
            let Some(mut told) = Told::from_bytes(&bytes) else {
                panic!("{size} bytes are a record");
            };
            assert_eq!(told.sight.is_some(), kind % 2 == 1);
            told.record.event %= Event::ALL.len() as u32 + 1;
            told.record.hook %= Hook::ALL.len() as u32 + 1;
            let registers = std::array::from_fn(|number| {
                8 * u32::from(*kind) % 64 + 8 * number as u32 % PT_REGS_WORDS as u32
            });
            let mut sites = Sites::new(Some(registers));
            let asked = sites.add(&told);
            if let Some((key, question)) = asked {
                assert_eq!(question.ip, told.record.ip);
                let mut code = Code::of_kernel(question.in_file);
                code.function = Some("f".to_owned());
                sites.learn(key, code);
            }
            let Some(story) = sites.tell(&told.record) else {
                return;
            };
            assert!(
                is_printable(&story.comm) && story.comm.len() <= 4 * 16,
                "{story:?}"
            );
            let line = Line::new(story, None, None, 1);
            assert!(is_printable(&line.message()), "{}", line.message());
            let json = serde_json::to_string(&line).unwrap();
            assert!(!json.contains(|c: char| c.is_control()), "{json}");
        });
    }
}
