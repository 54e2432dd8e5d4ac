//! The agent at work: one task that owns the ledgers and the table, and answers for snapshots.
//!
//! The ledgers are read for a snapshot and at a subject's death, not by a timer.

use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    io, mem,
    time::Instant,
};

use aya::maps::MapError;
use splitlock_common::{
    Event, Hook, Loss, Origin, Trap, classify,
    ledger::{SubjectKey, VcpuKey},
    record::{KIND_EVENT, KIND_VCPU, Record},
};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::{
    detection::Monitor,
    host::{
        self,
        clock::{boot_ns, unix_seconds},
        cpu::CpuFeatures,
    },
    intake::{
        kernel_log::{Batch, KernelLog, Report, message::What},
        ledgers::Ledgers,
        records::Records,
        vcpus::Vcpus,
    },
    memory,
    probes::{Probe, catalogue::Via, meaning, programs::Programs},
    subjects::{SubjectId, death, paths::Paths, process, resolver::Resolver},
    table::{
        Table,
        snapshot::{Fullness, HostFacts, ProbeRow, SCHEMA, Snapshot},
        stories::Stories,
    },
};

/// A question: what is there to show? The answer fails only if the kernel refuses a ledger.
pub type Request = oneshot::Sender<Result<Snapshot, MapError>>;

/// Subjects that go at once, from which on it is worth to give their memory back.
const CROWD: usize = 500;

/// What does not change while the agent runs.
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
    /// Subjects that may be watched at a time: each takes a descriptor.
    pub watched_limit: u64,
    /// The hooks.
    pub probes: Vec<Probe>,
    /// Where the host's file systems are mounted.
    pub paths: Paths,
}

impl Facts {
    /// Whether a hook is the authority for an event.
    fn counts(&self, hook: Hook, event: Event) -> bool {
        self.probes
            .iter()
            .any(|probe| probe.hook == hook && probe.authority.contains(event))
    }

    /// Whether calls of split-lock functions are followed.
    fn follows_calls(&self) -> bool {
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
    /// Will tell where the kernel keeps the mode of detection, if it tells.
    pub mode_address: oneshot::Receiver<u64>,
}

/// The agent's state. One task owns it.
struct Agent {
    facts: Facts,
    resolver: Resolver,
    follows_calls: bool,
    monitor: Monitor,
    mode_address: Option<u64>,
    programs: Programs,
    ledgers: Ledgers,
    vcpus: Vcpus,
    /// Claims of rows that were seen when rows were given back last.
    reclaimed_at: u64,
    table: Table,
    stories: Stories,
    log_reports: LogReports,
    log_history: Option<LogReports>,
    deaths: mpsc::UnboundedSender<SubjectId>,
    /// Subjects whose end is watched.
    watched: u64,
    /// Subjects whose end could not be watched, as no descriptor was free.
    unwatched: Vec<SubjectId>,
}

/// Reports of the kernel log: split locks, bus locks.
#[derive(Clone, Copy, Debug, Default)]
struct LogReports([u64; 2]);

impl LogReports {
    fn add(&mut self, reports: &[Report]) {
        for report in reports {
            self.0[usize::from(report.trap == Trap::BusLock)] += 1;
        }
    }

    fn by_name(self) -> BTreeMap<&'static str, u64> {
        [Trap::SplitLock.name(), Trap::BusLock.name()]
            .into_iter()
            .zip(self.0)
            .collect()
    }
}

/// Runs until nobody can ask any more.
pub async fn run(
    sources: Sources,
    table: Table,
    facts: Facts,
    monitor: Monitor,
    mut requests: mpsc::Receiver<Request>,
) {
    let (deaths, mut dead) = mpsc::unbounded_channel();
    let mut kernel_log = sources.kernel_log;
    let mut records_source = Some(sources.records);
    let mut mode_address = Some(sources.mode_address);
    let mut agent = Agent {
        follows_calls: facts.follows_calls(),
        resolver: Resolver::new(facts.paths.clone()),
        facts,
        monitor,
        mode_address: None,
        programs: sources.programs,
        ledgers: sources.ledgers,
        vcpus: Vcpus::default(),
        reclaimed_at: 0,
        table,
        stories: Stories::default(),
        log_reports: LogReports::default(),
        log_history: sources.log_history.map(|history| {
            let mut reports = LogReports::default();
            reports.add(&history);
            reports
        }),
        deaths,
        watched: 0,
        unwatched: vec![],
    };
    agent.look_at_host();
    let mut records = vec![];
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => {
                    // Nobody waits any more where the connection was closed.
                    let _ = request.send(agent.snapshot());
                }
                None => return,
            },
            Some(subject) = dead.recv() => {
                agent.watched -= 1;
                agent.bury(subject);
            }
            result = next_records(&mut records_source, &mut records) => match result {
                Ok(()) => {
                    agent.take_records(&mut records);
                    agent.name_new();
                }
                Err(error) => {
                    warn!(%error, "the ring buffer cannot be read any more; counts go on, stories end");
                    records_source = None;
                }
            },
            address = known(&mut mode_address) => {
                mode_address = None;
                agent.mode_address = address;
                agent.look_at_host();
            }
            result = next_log(&mut kernel_log) => match result {
                Ok(batch) => {
                    agent.take_log(&batch);
                    agent.name_new();
                }
                Err(error) => {
                    warn!(%error, "the kernel log cannot be read any more");
                    kernel_log = None;
                }
            },
        }
    }
}

async fn next_records(source: &mut Option<Records>, records: &mut Vec<Record>) -> io::Result<()> {
    match source {
        Some(source) => source.next(records).await,
        None => pending().await,
    }
}

async fn known(address: &mut Option<oneshot::Receiver<u64>>) -> Option<u64> {
    match address {
        // The sender goes without a word where the kernel does not tell.
        Some(address) => address.await.ok(),
        None => pending().await,
    }
}

async fn next_log(log: &mut Option<KernelLog>) -> io::Result<Batch> {
    match log {
        Some(log) => log.next().await,
        None => pending().await,
    }
}

impl Agent {
    /// Records bring two things: the story, and the news of a subject, which is watched from then
    /// on. The counts are in the ledgers.
    fn take_records(&mut self, records: &mut Vec<Record>) {
        for record in records.drain(..) {
            if record.kind == KIND_VCPU {
                self.vcpus
                    .add(vcpu(&record), record.event, &self.ledgers.rows);
                if let Err(error) = self.reclaim_rows() {
                    warn!(%error, "rows of ended vCPU threads cannot be freed");
                }
            }
            if self.table.key(record.subject.into()).is_none()
                && let Err(error) = self.meet(record.subject)
            {
                warn!(pid = record.subject.tgid, %error, "a new subject's ledger entry cannot be read");
            }
            if record.kind == KIND_EVENT {
                self.stories.add(record);
            }
        }
    }

    /// Reads what the ledgers hold of a subject that they have not told of yet.
    fn meet(&mut self, key: SubjectKey) -> Result<(), MapError> {
        if self.table.is_full() {
            self.expire();
        }
        let mut is_new = false;
        if let Some(entry) = self.ledgers.trap(key)? {
            is_new |= self.table.read_trap(key, &entry);
            debug!(pid = key.tgid, "a subject with events");
        }
        if let Some((head, tally)) = self.vcpus.tally(key, &self.ledgers.rows) {
            is_new |= self.table.read_exits(key, &head, tally);
            debug!(pid = key.tgid, "a VM");
        }
        if is_new {
            self.watch(key.into());
        }
        Ok(())
    }

    /// Asks who the subjects are that are new, and may not be there for long.
    fn name_new(&mut self) {
        for unnamed in self.table.take_unnamed() {
            let identity = self.resolver.identify(unnamed.id, &unnamed.seen());
            self.table.name(&identity);
        }
    }

    fn watch(&mut self, id: SubjectId) {
        let result = if self.watched < self.facts.watched_limit {
            death::watch(&self.facts.paths, id, &self.deaths)
        } else {
            Err(io::Error::other("too few file descriptors"))
        };
        match result {
            Ok(()) => self.watched += 1,
            Err(error) => {
                if self.unwatched.is_empty() {
                    warn!(pid = id.pid, %error, "its end cannot be watched yet; tried again at each scrape");
                }
                self.unwatched.push(id);
            }
        }
    }

    /// Finds the rows that were claimed without a record's telling so.
    fn find_rows(&mut self) -> Result<(), MapError> {
        if self.ledgers.host().rows_claimed == self.vcpus.seen() {
            return Ok(());
        }
        let unknown: Vec<VcpuKey> = self
            .ledgers
            .vcpus()
            .filter(|vcpu| !matches!(vcpu, Ok(vcpu) if self.vcpus.knows(vcpu)))
            .collect::<Result<_, _>>()?;
        for vcpu in unknown {
            let row = self.ledgers.row_of(vcpu)?;
            self.vcpus.add(vcpu, row, &self.ledgers.rows);
        }
        Ok(())
    }

    /// Gives rows back whose thread has ended before its VM, once they get scarce. Each time looks
    /// at all rows, so it waits for more claims in between.
    fn reclaim_rows(&mut self) -> Result<(), MapError> {
        let rows = self.facts.exit_rows;
        let since = self.vcpus.seen() - self.reclaimed_at;
        if self.vcpus.claimed() < rows / 4 * 3 || since <= rows as u64 / 16 {
            return Ok(());
        }
        self.reclaimed_at = self.vcpus.seen();
        let paths = &self.facts.paths;
        let has_ended =
            |vcpu: &VcpuKey| !process::has_thread(paths, vcpu.subject().tgid, vcpu.tid());
        for (vcpu, row) in self.vcpus.remove_ended(&self.ledgers.rows, has_ended) {
            self.ledgers.free_vcpu(vcpu, row)?;
        }
        Ok(())
    }

    /// A subject has ended: its last counts are read, then its places in the ledgers are freed.
    fn bury(&mut self, id: SubjectId) {
        let key = match self.table.key(id) {
            Some(key) => Ok(Some(key)),
            None => self.find_key(id),
        };
        let result = key.and_then(|key| key.map_or(Ok(()), |key| self.read_last(key)));
        if let Err(error) = result {
            warn!(pid = id.pid, %error, "the last counts of an ended subject cannot be read or freed");
        }
        self.name_new();
        self.table.end(id, Instant::now());
    }

    /// Looks for a subject that the kernel log or KVM told of in the ledgers, which may have it
    /// without having said so.
    fn find_key(&mut self, id: SubjectId) -> Result<Option<SubjectKey>, MapError> {
        self.find_rows()?;
        if let Some(key) = self.vcpus.vms().find(|key| SubjectId::from(*key) == id) {
            return Ok(Some(key));
        }
        for item in self.ledgers.traps() {
            let (key, _) = item?;
            if SubjectId::from(key) == id {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn read_last(&mut self, key: SubjectKey) -> Result<(), MapError> {
        if let Some(entry) = self.ledgers.trap(key)? {
            self.table.read_trap(key, &entry);
            self.ledgers.free_trap(key)?;
        }
        self.find_rows()?;
        if let Some((head, tally)) = self.vcpus.tally(key, &self.ledgers.rows) {
            self.table.read_exits(key, &head, tally);
        }
        for (vcpu, row) in self.vcpus.remove(key) {
            self.ledgers.free_vcpu(vcpu, row)?;
        }
        self.count_unseen(key)
    }

    /// Counts the last traps of a dead subject's threads, if their return was not seen.
    fn count_unseen(&mut self, key: SubjectKey) -> Result<(), MapError> {
        // Where the pid is another's already, the calls may be its.
        if !self.follows_calls || process::start_ticks(&self.facts.paths, key.tgid).is_ok() {
            return Ok(());
        }
        let mode = self.monitor.detection().mode;
        for (call_key, call) in self.ledgers.take_calls(key.tgid)? {
            let hook = Hook::ALL
                .into_iter()
                .find(|hook| *hook as u32 == call_key.hook);
            let event = hook.and_then(|hook| {
                classify::unseen_return(hook, call.eflags, call.sigbus != 0, mode)
                    .filter(|event| self.facts.counts(hook, *event))
            });
            self.table.add_lost(Loss::ReturnUnseen, 1);
            if let Some(event) = event {
                self.table
                    .count_event(key.into(), b"", event, call.entered_ns);
            }
        }
        Ok(())
    }

    fn take_log(&mut self, batch: &Batch) {
        self.log_reports.add(&batch.reports);
        self.table.add_lost(Loss::KernelLogOverrun, batch.overruns);
        self.table
            .add_lost(Loss::KernelLogMalformed, batch.malformed);
        for report in &batch.reports {
            let (id, is_vcpu) = self.who(report.tid);
            let event = match (report.trap, report.what) {
                (Trap::BusLock, _) => Event::UserBusLockWarned,
                // The same line for both; a vCPU thread spends its time in the guest.
                (Trap::SplitLock, What::Took) if is_vcpu => Event::GuestSplitLockWarned,
                (Trap::SplitLock, What::Took) => Event::UserSplitLockWarned,
                (Trap::SplitLock, What::Fatal | What::Bogus) => Event::GuestSplitLockSigbus,
            };
            if self.facts.counts(Hook::KernelLog, event)
                && self
                    .table
                    .count_event(id, report.comm.as_bytes(), event, boot_ns())
            {
                self.watch(id);
            }
        }
    }

    /// The thread group of a thread that the log names, and whether it is a vCPU. One that is gone
    /// stands for itself.
    fn who(&self, tid: u32) -> (SubjectId, bool) {
        let found = process::thread_group(&self.facts.paths, tid)
            .and_then(|pid| Ok((pid, process::start_ticks(&self.facts.paths, pid)?)));
        let Ok((pid, start_ticks)) = found else {
            let gone = SubjectId {
                pid: tid,
                start_ticks: 0,
            };
            return (gone, false);
        };
        let id = SubjectId { pid, start_ticks };
        let is_vcpu = self.table.key(id).is_some_and(|key| {
            let vcpu = VcpuKey {
                pid_tgid: u64::from(pid) << 32 | u64::from(tid),
                start_ns: key.start_ns,
            };
            self.vcpus.knows(&vcpu)
        });
        (id, is_vcpu)
    }

    /// Reads what may have changed about the host, and tells the programs.
    fn look_at_host(&mut self) {
        self.monitor.read_mitigation(host::mitigation());
        if let Some(value) = self
            .mode_address
            .and_then(|address| self.programs.read_word(address))
        {
            self.monitor.read_memory(value);
        }
        if let Err(error) = self.programs.tell(self.monitor.settings()) {
            warn!(%error, "the programs cannot be told the mode of detection");
        }
    }

    fn host_facts(&self) -> HostFacts {
        let reported = self.table.host_count(Event::GuestBusLockReported) > 0;
        let sees = [
            (Origin::User, self.monitor.sees_user()),
            (Origin::Guest, self.monitor.sees_guest(reported)),
        ];
        let detection = self.monitor.detection();
        HostFacts {
            kernel: self.facts.kernel.clone(),
            cpu_features: self.facts.cpu.map(CpuFeatures::by_name).unwrap_or_default(),
            detection_mode: detection.mode.name(),
            detection_source: detection.source.name(),
            sees: sees
                .into_iter()
                .filter_map(|(origin, sees)| Some((origin.name(), sees?)))
                .collect(),
            mitigation: self.monitor.mitigation(),
            changes: self.monitor.changes(),
        }
    }

    fn probes(&self) -> Vec<ProbeRow> {
        let missed: HashMap<Hook, u64> = self.programs.missed().collect();
        let mode = self.monitor.detection().mode;
        let row = |probe: &Probe| {
            let Probe {
                hook,
                via,
                authority: _,
                counts_exits: _,
                refusals,
            } = probe;
            ProbeRow {
                probe: hook.name(),
                via: via.map(Via::name),
                counts: meaning::counts(probe, self.facts.kernel_version, mode).name(),
                refused: refusals
                    .iter()
                    .map(|refusal| format!("{}: {}", refusal.via.name(), refusal.reason))
                    .collect(),
                missed: missed.get(hook).copied(),
            }
        };
        self.facts.probes.iter().map(row).collect()
    }

    fn expire(&mut self) {
        if self.table.expire(Instant::now()) >= CROWD {
            memory::give_back();
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot, MapError> {
        self.look_at_host();
        self.expire();
        let ledgers = self.read_all()?;
        self.name_new();
        Ok(Snapshot {
            schema: SCHEMA,
            taken_at: unix_seconds(boot_ns()),
            host: self.host_facts(),
            host_traps: self.table.host_traps(),
            processes: self.table.processes(),
            vms: self.table.vms(),
            workloads: self.table.workloads(),
            overflow_traps: self.table.overflow(),
            lost: self.table.lost(),
            tracked: self.table.tracked(),
            ledgers,
            probes: self.probes(),
            kernel_log_reports: self.log_reports.by_name(),
            kernel_log_history: self.log_history.map(LogReports::by_name),
            recent: self.stories.tell(),
        })
    }

    /// Reads the ledgers, and tells how full they are.
    fn read_all(&mut self) -> Result<BTreeMap<&'static str, Fullness>, MapError> {
        // An entry that a new subject inserts meanwhile may be missed; the next reading has it.
        let mut news = vec![];
        let mut entries = 0;
        for item in self.ledgers.traps() {
            let (key, entry) = item?;
            entries += 1;
            if self.table.read_trap(key, &entry) {
                news.push(key);
            }
        }
        self.find_rows()?;
        self.reclaim_rows()?;
        for key in self.vcpus.vms() {
            if let Some((head, tally)) = self.vcpus.tally(key, &self.ledgers.rows)
                && self.table.read_exits(key, &head, tally)
            {
                news.push(key);
            }
        }
        let again = mem::take(&mut self.unwatched);
        for id in again.into_iter().chain(news.into_iter().map(Into::into)) {
            self.watch(id);
        }
        // Last, so that the host's totals are never behind the subjects'.
        self.table.read_host(self.ledgers.host());
        let fullness = |used: usize, limit: usize| Fullness {
            used: used as u64,
            limit: limit as u64,
        };
        Ok(BTreeMap::from([
            ("traps", fullness(entries, self.facts.trap_entries)),
            (
                "exits",
                fullness(self.vcpus.claimed(), self.facts.exit_rows),
            ),
        ]))
    }
}

/// The vCPU thread that a record tells of.
const fn vcpu(record: &Record) -> VcpuKey {
    VcpuKey {
        pid_tgid: (record.subject.tgid as u64) << 32 | record.tid as u64,
        start_ns: record.subject.start_ns,
    }
}
