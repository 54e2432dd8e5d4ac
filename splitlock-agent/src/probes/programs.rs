//! The loaded programs: what the agent asks of them while they run.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, MapError},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use splitlock_common::{
    Hook,
    ledger::{Settings, Word},
};
use tracing::debug;

use super::{Probe, catalogue::LADDERS, cost::Cost};

const READ_WORD: &str = "read_word";

/// A shared structure as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: two integers without padding.
unsafe impl Pod for Plain<Settings> {}
// SAFETY: two integers without padding.
unsafe impl Pod for Plain<Word> {}

/// The loaded programs. They are attached as long as this value lives.
pub struct Programs {
    ebpf: Ebpf,
    settings: Array<MapData, Plain<Settings>>,
    word: Array<MapData, Plain<Word>>,
    /// What they were told last.
    told: Option<Settings>,
    can_read: bool,
    /// Descriptors of the attached programs, by hook.
    attached: Vec<(Hook, Vec<RawFd>)>,
}

impl Programs {
    /// Takes the attached object over.
    pub fn new(mut ebpf: Ebpf, probes: &[Probe]) -> Result<Self> {
        let attached = probes
            .iter()
            .map(|probe| (probe.hook, descriptors(&ebpf, probe)))
            .collect();
        let mut take = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("the BPF object has no map {name}"))
        };
        let settings = take("SETTINGS")?.try_into()?;
        let word = take("WORD")?.try_into()?;
        // Now, as whoever reads later may have no right to load.
        let can_read = load_reader(&mut ebpf)
            .inspect_err(|error| {
                debug!(
                    error = format!("{error:#}"),
                    "kernel memory is not readable"
                );
            })
            .is_ok();
        Ok(Self {
            ebpf,
            settings,
            word,
            told: None,
            can_read,
            attached,
        })
    }

    /// What each hook's programs cost so far. Hooks without programs, and those of which the kernel
    /// does not tell, are left out.
    pub fn costs(&self) -> impl Iterator<Item = (Hook, Cost)> + '_ {
        self.attached
            .iter()
            .filter(|(_, programs)| !programs.is_empty())
            .filter_map(|(hook, programs)| {
                let cost: io::Result<Cost> = programs.iter().map(|fd| Cost::of(*fd)).sum();
                Some((*hook, cost.ok()?))
            })
    }

    /// Tells the programs what is known of the host, if that is news.
    pub fn tell(&mut self, settings: Settings) -> Result<(), MapError> {
        if self.told != Some(settings) {
            self.settings.set(0, Plain(settings), 0)?;
            self.told = Some(settings);
        }
        Ok(())
    }

    /// The 32-bit word of kernel memory at an address. `None` where the kernel refuses the reading
    /// (lockdown), or there is nothing at the address.
    pub fn read_word(&mut self, address: u64) -> Option<u32> {
        if !self.can_read {
            return None;
        }
        match self.try_read_word(address) {
            Ok(word) => (word.is_read == 1).then_some(word.value),
            Err(error) => {
                debug!(
                    error = format!("{error:#}"),
                    "kernel memory is not readable"
                );
                self.can_read = false;
                None
            }
        }
    }

    fn try_read_word(&mut self, address: u64) -> Result<Word> {
        let program = reader(&mut self.ebpf)?;
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = address;
        program.test_run(options).context("run")?;
        Ok(self.word.get(&0, 0).context("the result")?.0)
    }
}

fn reader(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint> {
    ebpf.program_mut(READ_WORD)
        .context("the BPF object has no program read_word")?
        .try_into()
        .map_err(Into::into)
}

fn load_reader(ebpf: &mut Ebpf) -> Result<()> {
    reader(ebpf)?.load().context("load")
}

fn descriptors(ebpf: &Ebpf, probe: &Probe) -> Vec<RawFd> {
    let rung = LADDERS
        .iter()
        .filter(|ladder| ladder.hook == probe.hook)
        .flat_map(|ladder| ladder.rungs)
        .find(|rung| Some(rung.via) == probe.via);
    rung.into_iter()
        .flat_map(|rung| rung.attachments)
        .filter_map(|attachment| ebpf.program(attachment.program()?)?.fd().ok())
        .map(|fd| fd.as_fd().as_raw_fd())
        .collect()
}
