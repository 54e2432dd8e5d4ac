//! What the agent starts from: facts that do not change, and the sources of events.

use std::fs::File;

use splitlock_common::{Event, Hook};

use crate::{
    host::cpu::CpuFeatures,
    intake::{
        kernel_log::{KernelLog, Report},
        ledgers::Ledgers,
        records::Records,
    },
    probes::{Probe, catalogue::Via, overhead::Percent, programs::Programs},
    subjects::{death::Deaths, paths::Paths, uevents::VmEvents},
};

/// What does not change while the agent runs, but for hooks that are taken off.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`.
    pub kernel: String,
    /// The CPU's features; `None` where its flags could not be read.
    pub cpu: Option<CpuFeatures>,
    /// Major and minor number of the kernel.
    pub kernel_version: Option<(u32, u32)>,
    /// Entries of the trap ledger.
    pub trap_entries: usize,
    /// Rows of the exit ledger.
    pub exit_rows: usize,
    /// Those that a thread can have: a row is found by a thread's number, of which there are
    /// `kernel.pid_max`.
    pub reachable_rows: usize,
    /// Where in `pt_regs` the general registers are.
    pub general_registers: Option<[u32; 16]>,
    /// Bytes of the ring buffer.
    pub record_bytes: u64,
    /// Whether the kernel counts the programs' runs and time.
    pub probe_statistics: bool,
    /// Whether KVM was not there at the start, and with it none of its hooks.
    pub lacks_kvm: bool,
    /// What the programs may cost.
    pub max_overhead: Option<Percent>,
    /// The hooks.
    pub probes: Vec<Probe>,
    /// Where the host's file systems are mounted.
    pub paths: Paths,
}

impl Facts {
    /// Whether a hook is the authority for an event.
    pub fn counts(&self, hook: Hook, event: Event) -> bool {
        self.probes
            .iter()
            .any(|probe| probe.hook == hook && probe.authority.contains(event))
    }

    /// Whether calls of split-lock functions are followed.
    pub fn follows_calls(&self) -> bool {
        self.probes
            .iter()
            .any(|probe| matches!(probe.via, Some(Via::Fentry | Via::Kprobe)))
    }
}

/// Where events come from.
pub struct Sources {
    /// The loaded programs.
    pub programs: Programs,
    /// The ledgers.
    pub ledgers: Ledgers,
    /// The ring buffer.
    pub records: Records,
    /// The kernel log, where it could be opened.
    pub kernel_log: Option<KernelLog>,
    /// Reports that were in the kernel log at the start.
    pub log_history: Option<Vec<Report>>,
    /// KVM's word of new VMs, where the kernel gives it.
    pub vm_events: Option<VmEvents>,
    /// Will tell of subjects' ends.
    pub deaths: Deaths,
    /// The kernel's symbols, among which is where it keeps the mode of detection; where they could be
    /// opened.
    pub symbols: Option<File>,
}
