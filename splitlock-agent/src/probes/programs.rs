//! The loaded programs: what the agent asks of them while they run.

use std::{
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, MapError},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use splitlock_common::{
    EventSet, Hook,
    ledger::{Settings, Word},
};
use tracing::debug;

use super::{
    Probe, attach,
    catalogue::{Attachment, LADDERS},
    cost::{Account, Cost},
};

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
    authority: Array<MapData, u32>,
    /// What tells of the attached programs' cost, by hook.
    attached: Vec<(Hook, Vec<Account>)>,
    /// Names of all programs that are attached, by hook.
    names: Vec<(Hook, Vec<&'static str>)>,
    /// What those had cost that were taken off since.
    past: Vec<(Hook, Cost)>,
}

impl Programs {
    /// Takes the attached object over.
    pub fn new(mut ebpf: Ebpf, probes: &[Probe]) -> Result<Self> {
        let attached = probes
            .iter()
            .map(|probe| (probe.hook, accounts(&ebpf, probe)))
            .collect();
        let names = probes
            .iter()
            .map(|probe| (probe.hook, names(probe).collect()))
            .collect();
        let mut take = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("the BPF object has no map {name}"))
        };
        let settings = take("SETTINGS")?.try_into()?;
        let word = take("WORD")?.try_into()?;
        let authority = take("AUTHORITY")?.try_into()?;
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
            authority,
            attached,
            names,
            past: vec![],
        })
    }

    /// What each hook's programs cost so far. Hooks without programs, and those of which the kernel
    /// does not tell, are left out.
    pub fn costs(&self) -> impl Iterator<Item = (Hook, Cost)> + '_ {
        self.attached
            .iter()
            .filter(|(_, programs)| !programs.is_empty())
            .filter_map(|(hook, programs)| {
                let cost: io::Result<Cost> = programs.iter().map(Account::read).sum();
                Some((*hook, cost.ok()?))
            })
            .chain(self.past.iter().copied())
    }

    /// Takes a hook's programs off for good. What they had cost is still told.
    pub fn detach(&mut self, hook: Hook) {
        let cost = self.costs().find(|(of, _)| *of == hook);
        self.past.extend(cost);
        self.attached.retain(|(of, _)| *of != hook);
        for (of, names) in &mut self.names {
            if *of == hook {
                for name in names.drain(..) {
                    attach::unload_program(&mut self.ebpf, name);
                }
            }
        }
    }

    /// Takes off the program that reads kernel memory.
    pub fn unload_reader(&mut self) {
        if mem::take(&mut self.can_read) {
            attach::unload_program(&mut self.ebpf, READ_WORD);
        }
    }

    /// Tells each hook what it counts from now on.
    ///
    /// # Errors
    /// The kernel refuses the writing.
    pub fn let_count(&mut self, table: [EventSet; Hook::COUNT]) -> Result<(), MapError> {
        for (hook, events) in Hook::ALL.into_iter().zip(table) {
            self.authority.set(hook as u32, events.bits(), 0)?;
        }
        Ok(())
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

fn accounts(ebpf: &Ebpf, probe: &Probe) -> Vec<Account> {
    names(probe)
        .filter_map(|name| ebpf.program(name)?.fd().ok())
        .filter_map(|fd| Account::open(fd.as_fd().as_raw_fd()).ok())
        .collect()
}

/// Names of the programs by which a hook is attached.
fn names(probe: &Probe) -> impl Iterator<Item = &'static str> {
    let rung = LADDERS
        .iter()
        .filter(|ladder| ladder.hook == probe.hook)
        .flat_map(|ladder| ladder.rungs)
        .find(|rung| Some(rung.via) == probe.via);
    rung.into_iter()
        .flat_map(|rung| rung.attachments)
        .filter_map(Attachment::program)
}
