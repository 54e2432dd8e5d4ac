//! The ledgers and the host's counters: reading them, and freeing what a dead subject held.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use splitlock_common::ledger::{Call, CallKey, HostCounters, SubjectKey, TrapEntry, VcpuKey};

use super::{batch, exit_rows::ExitRows, mapped::Mapped};

/// Flag of an insertion that changes nothing which is there (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;

/// A shared structure as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: the structures are `repr(C)` integers without padding; their tests check it.
unsafe impl Pod for Plain<SubjectKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<TrapEntry> {}
// SAFETY: as above.
unsafe impl Pod for Plain<VcpuKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<CallKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Call> {}

/// The ledgers of a loaded object.
pub struct Ledgers {
    host: Mapped<HostCounters>,
    traps: HashMap<MapData, Plain<SubjectKey>, Plain<TrapEntry>>,
    /// The same map, to be read as a whole.
    all_traps: OwnedFd,
    owners: HashMap<MapData, Plain<VcpuKey>, u32>,
    calls: HashMap<MapData, Plain<CallKey>, Plain<Call>>,
    taken_rows: HashMap<MapData, u32, u32>,
    /// Programs are loaded after the maps are taken over, and refer to these by descriptor.
    _mapped: [Map; 2],
    /// The exit ledger's rows.
    pub rows: ExitRows,
}

fn array(map: &Map) -> Result<&MapData> {
    match map {
        Map::Array(data) => Ok(data),
        _ => bail!("the BPF object has another type of map than an array"),
    }
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the BPF object has no map {name}"))
}

impl Ledgers {
    /// Takes the ledgers over.
    pub fn take(ebpf: &mut Ebpf, exit_rows: u32) -> Result<Self> {
        let rows_map = take(ebpf, "EXIT_ROWS")?;
        let rows = ExitRows::map(array(&rows_map)?.fd(), exit_rows).context("mapping EXIT_ROWS")?;
        let host_map = take(ebpf, "HOST")?;
        let host = Mapped::map(array(&host_map)?.fd(), 1).context("mapping HOST")?;
        let traps = take(ebpf, "TRAPS")?;
        let all_traps = match &traps {
            Map::HashMap(data) => data.fd().as_fd().try_clone_to_owned()?,
            _ => bail!("TRAPS is no hash"),
        };
        Ok(Self {
            host,
            traps: traps.try_into()?,
            all_traps,
            owners: take(ebpf, "EXIT_OWNERS")?.try_into()?,
            calls: take(ebpf, "CALLS")?.try_into()?,
            taken_rows: take(ebpf, "TAKEN_ROWS")?.try_into()?,
            _mapped: [rows_map, host_map],
            rows,
        })
    }

    /// The host's counters.
    pub fn host(&self) -> HostCounters {
        self.host
            .get(0)
            // SAFETY: mapped as long as this value lives; each counter is an aligned word, which is
            // never torn.
            .map(|counters| unsafe { counters.read_volatile() })
            .unwrap_or_default()
    }

    /// Hands out all entries of the trap ledger. One that is added meanwhile may be missing.
    pub fn for_each_trap(
        &self,
        mut each: impl FnMut(SubjectKey, &TrapEntry),
    ) -> Result<(), MapError> {
        let entry = |key: Plain<SubjectKey>, entry: Plain<TrapEntry>| each(key.0, &entry.0);
        Ok(batch::for_each(&self.all_traps, entry)?)
    }

    /// One subject's entry of the trap ledger.
    pub fn trap(&self, key: SubjectKey) -> Result<Option<TrapEntry>, MapError> {
        match self.traps.get(&Plain(key), 0) {
            Ok(entry) => Ok(Some(entry.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All vCPU threads that have a row.
    pub fn vcpus(&self) -> impl Iterator<Item = Result<VcpuKey, MapError>> + '_ {
        self.owners.keys().map(|key| key.map(|key| key.0))
    }

    /// The row of a vCPU thread.
    pub fn row_of(&self, vcpu: VcpuKey) -> Result<u32, MapError> {
        self.owners.get(&Plain(vcpu), 0)
    }

    /// Takes out the calls of a dead subject's threads whose return was not seen.
    pub fn take_calls(&mut self, tgid: u32) -> Result<Vec<(CallKey, Call)>, MapError> {
        let calls = self
            .calls
            .iter()
            .map(|item| item.map(|(key, call)| (key.0, call.0)))
            // A call that is closed while the map is read is nobody's here.
            .filter(|item| !matches!(item, Err(MapError::KeyNotFound)))
            .filter(|item| {
                item.as_ref()
                    .map_or(true, |(key, _)| key.pid_tgid >> 32 == u64::from(tgid))
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (key, _) in &calls {
            match self.calls.remove(&Plain(*key)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(calls)
    }

    /// Frees a dead subject's entry of the trap ledger.
    pub fn free_trap(&mut self, key: SubjectKey) -> Result<(), MapError> {
        match self.traps.remove(&Plain(key)) {
            Err(MapError::KeyNotFound) => Ok(()),
            result => result,
        }
    }

    /// Frees a dead VM's row of the exit ledger: no thread of it can count there any more.
    pub fn free_vcpu(&mut self, key: VcpuKey, row: u32) -> Result<(), MapError> {
        self.disown(key)?;
        self.free_row(row)
    }

    /// From now on a thread that gets this number finds no row. One that has found it goes on there.
    pub fn disown(&mut self, key: VcpuKey) -> Result<(), MapError> {
        match self.owners.remove(&Plain(key)) {
            // It was done before.
            Err(MapError::KeyNotFound) => Ok(()),
            result => result,
        }
    }

    /// Takes that back. False if a further thread has another row under this number by now.
    pub fn own_again(&mut self, key: VcpuKey, row: u32) -> Result<bool, MapError> {
        match self.owners.insert(Plain(key), row, BPF_NOEXIST) {
            Ok(()) => Ok(true),
            Err(_) if self.owners.get(&Plain(key), 0).is_ok() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Frees a row that nobody owns.
    pub fn free_row(&mut self, row: u32) -> Result<(), MapError> {
        self.rows.clear(row);
        self.taken_rows.remove(&row)
    }
}
