//! The loaded programs: what the agent asks of them while they run.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, MapError},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use splitlock_common::ledger::Settings;

const READ_WORD: &str = "read_word";

/// What the program returns for an address that cannot be read.
const UNREADABLE: u32 = u32::MAX;

/// Settings as aya wants them.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain(Settings);

// SAFETY: two integers without padding.
unsafe impl Pod for Plain {}

/// The loaded programs. They are attached as long as this value lives.
pub struct Programs {
    ebpf: Ebpf,
    settings: Array<MapData, Plain>,
    can_read: bool,
}

impl Programs {
    /// Takes the attached object over.
    pub fn new(mut ebpf: Ebpf) -> Result<Self> {
        let settings = ebpf
            .take_map("SETTINGS")
            .context("the BPF object has no map SETTINGS")?
            .try_into()?;
        Ok(Self {
            ebpf,
            settings,
            can_read: true,
        })
    }

    /// Tells the programs what is known of the host.
    pub fn set(&mut self, settings: Settings) -> Result<(), MapError> {
        self.settings.set(0, Plain(settings), 0)
    }

    /// The 32-bit word of kernel memory at an address. `None` where the kernel refuses the reading
    /// (lockdown), or there is nothing at the address.
    pub fn read_word(&mut self, address: u64) -> Option<u32> {
        if !self.can_read {
            return None;
        }
        match try_read_word(&mut self.ebpf, address) {
            Ok(word) => (word != UNREADABLE).then_some(word),
            Err(error) => {
                tracing::debug!(
                    error = format!("{error:#}"),
                    "kernel memory is not readable"
                );
                self.can_read = false;
                None
            }
        }
    }
}

fn try_read_word(ebpf: &mut Ebpf, address: u64) -> Result<u32> {
    let program: &mut RawTracePoint = ebpf
        .program_mut(READ_WORD)
        .context("the BPF object has no program read_word")?
        .try_into()?;
    if program.fd().is_err() {
        program.load().context("load")?;
    }
    let mut options = RawTracePointRunOptions::new();
    options.args[0] = address;
    Ok(program.test_run(options).context("run")?.return_value)
}
