//! The maps. The agent sets the sizes of the ledgers and of the ring buffer at load.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use splitlock_common::{
    Hook,
    ledger::{
        Call, CallKey, ExitRow, HostCounters, Settings, SubjectKey, TrapEntry, VcpuKey, Word,
    },
    record::Record,
};

/// What each hook counts: bits of `splitlock_common::EventSet`, indexed by the hook's number.
/// Empty until the agent knows which hooks are attached, so that nothing is counted twice.
#[btf_map]
pub static AUTHORITY: Array<u32, { Hook::COUNT }> = Array::new();

/// What the agent knows of the host and may learn anew.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// The word of kernel memory that was read last.
#[btf_map]
pub static WORD: Array<Word, 1> = Array::new();

/// Totals of the host: exact also when the ledger is full. The agent maps them into its memory.
#[btf_map]
pub static HOST: Array<HostCounters, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The trap ledger.
#[btf_map]
pub static TRAPS: HashMap<SubjectKey, TrapEntry, 16384> = HashMap::new();

/// The exit ledger's rows. The agent maps them into its memory.
#[btf_map]
pub static EXIT_ROWS: Array<ExitRow, 4096, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Which row belongs to a vCPU thread.
#[btf_map]
pub static EXIT_OWNERS: HashMap<VcpuKey, u32, 4096> = HashMap::new();

/// Rows that belong to somebody: inserting one decides who claims it.
#[btf_map]
pub static TAKEN_ROWS: HashMap<u32, u32, 4096> = HashMap::new();

/// The row that each CPU searched for last: 8 bytes per CPU, the only memory that grows with their
/// number.
#[btf_map]
pub static LAST_ROW: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Calls of split-lock functions under way. Each lasts 10 ms and more in the kernel's warn mode,
/// where they also queue behind one another.
#[btf_map]
pub static CALLS: HashMap<CallKey, Call, 16384> = HashMap::new();

/// The story.
#[btf_map]
pub static RECORDS: RingBuf<Record, 524_288> = RingBuf::new();
