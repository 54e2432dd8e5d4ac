//! A subject's life: it is met, its end is watched, and then its last counts are read and its places
//! in the ledgers freed.

use std::{
    future::pending,
    thread,
    time::{Duration, Instant},
};

use aya::maps::MapError;
use splitlock_common::{
    Hook, Loss, classify,
    ledger::{SubjectKey, ThreadIdentity, VcpuKey},
};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, warn};

use super::Agent;
use crate::subjects::{SubjectId, process, vmm::vcpu::vcpu_number};

/// At least between two looks for those that ended long enough ago, scrapes aside.
const EXPIRY: Duration = Duration::from_secs(1);

/// Longer than any BPF program runs.
pub(super) const PROGRAMS: Duration = Duration::from_millis(5);

/// At least between two readings of the ledgers for subjects whose records were lost.
const UNTOLD: Duration = Duration::from_secs(1);

/// Rows of threads that have ended before their VM, which nobody owns any more.
pub(super) struct Reclaiming {
    /// With the thread that counted there last.
    ended: Vec<(VcpuKey, u32, ThreadIdentity)>,
    /// Ends with all programs that may have found one of them before.
    programs: JoinHandle<()>,
}

impl Reclaiming {
    /// Waits for those programs; for ever if nothing is reclaimed.
    pub async fn programs(reclaiming: &mut Option<Self>) {
        match reclaiming {
            // It does not panic, and nobody cancels it.
            Some(reclaiming) => drop((&mut reclaiming.programs).await),
            None => pending().await,
        }
    }
}

impl Agent {
    /// Reads what the ledgers hold of a subject that they have not told of yet.
    pub(super) fn meet(&mut self, key: SubjectKey) -> Result<(), MapError> {
        // To make room; what inherits from the forgotten is looked for among all.
        if self.table.is_full() && self.expired_at.elapsed() >= EXPIRY {
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
            self.note_crowd();
        }
        Ok(())
    }

    pub(super) fn watch(&mut self, id: SubjectId) {
        if let Err(error) = self.deaths.watch(&self.facts.paths, id) {
            if self.unwatched.is_empty() {
                warn!(pid = id.pid, %error, "its end cannot be watched yet; tried again at each scrape");
            }
            self.unwatched.push(id);
        }
    }

    /// Finds the rows that were claimed without a record's telling so.
    pub(super) fn find_rows(&mut self) -> Result<(), MapError> {
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
            let comm = process::comm(&self.facts.paths, vcpu.tid()).unwrap_or_default();
            self.vcpus
                .add(vcpu, row, vcpu_number(&comm), &self.ledgers.rows);
        }
        Ok(())
    }

    /// Gives rows back whose thread has ended before its VM, once they get scarce. Each time looks
    /// at all rows, so it waits for more claims in between.
    pub(super) fn reclaim_rows(&mut self) -> Result<(), MapError> {
        let rows = self.facts.reachable_rows;
        let since = self.vcpus.seen() - self.reclaimed_at;
        if self.reclaiming.is_some()
            || self.vcpus.claimed() < rows / 4 * 3
            || since <= rows as u64 / 16
        {
            return Ok(());
        }
        self.reclaimed_at = self.vcpus.seen();
        let paths = &self.facts.paths;
        let has_ended =
            |vcpu: &VcpuKey| !process::has_thread(paths, vcpu.subject().tgid, vcpu.tid());
        let ended = self.vcpus.ended(&self.ledgers.rows, has_ended);
        for (vcpu, _, _) in &ended {
            self.ledgers.disown(*vcpu)?;
        }
        // A thread that got the number of an ended one may have found its row before that.
        self.reclaiming = Some(Reclaiming {
            ended,
            programs: spawn_blocking(wait_for_programs),
        });
        Ok(())
    }

    /// Frees the rows of ended threads that nobody has found since.
    pub(super) fn finish_reclaiming(&mut self) -> Result<(), MapError> {
        let ended = self.reclaiming.take().map(|reclaiming| reclaiming.ended);
        for (vcpu, row, thread) in ended.into_iter().flatten() {
            // Its VM may have ended meanwhile, and the row may be another's.
            if self.vcpus.row(&vcpu) != Some(row) {
                continue;
            }
            let is_used_again = self.ledgers.rows.thread(row) != Some(thread);
            if is_used_again && self.ledgers.own_again(vcpu, row)? {
                continue;
            }
            self.vcpus.remove_ended(&vcpu, &self.ledgers.rows);
            self.ledgers.free_row(row)?;
        }
        Ok(())
    }

    /// A subject has ended: its last counts are read, then its places in the ledgers are freed.
    pub(super) fn bury(&mut self, id: SubjectId) {
        let key = match self.table.key(id) {
            Some(key) => Ok(Some(key)),
            None => self.find_key(id),
        };
        let result = key.and_then(|key| key.map_or(Ok(()), |key| self.read_last(key)));
        if let Err(error) = result {
            warn!(pid = id.pid, %error, "the last counts of an ended subject cannot be read or freed");
        }
        self.ask_who_is_new();
        self.table.end(id, Instant::now());
        if let Some(identity) = self.inquiries.answer_of_ended(id) {
            self.take_name(&identity);
        }
        self.note_crowd();
    }

    /// Looks for a subject that the kernel log or KVM told of in the ledgers, which may have it
    /// without having said so.
    pub(super) fn find_key(&mut self, id: SubjectId) -> Result<Option<SubjectKey>, MapError> {
        self.find_rows()?;
        if let Some(key) = self.vcpus.vms().find(|key| SubjectId::from(*key) == id) {
            return Ok(Some(key));
        }
        // Whoever has an entry has said so, unless that was lost; it may be about to be read.
        if !self.births_were_lost() {
            return Ok(None);
        }
        let mut found = None;
        self.ledgers.for_each_trap(|key, _| {
            if SubjectId::from(key) == id {
                found = Some(key);
            }
        })?;
        Ok(found)
    }

    /// Whether a record of a subject's first event may have been lost since the ledgers were read.
    fn births_were_lost(&self) -> bool {
        self.ledgers.host().lost[Loss::RecordRingFull as usize] > self.lost_records
    }

    /// Reads the ledgers if records were lost since they were read last, at most once in a while:
    /// subjects whose first event's record was lost are not known yet, and keep their entries when
    /// they end.
    pub(super) fn find_the_untold(&mut self) {
        let lost = self.ledgers.host().lost[Loss::RecordRingFull as usize];
        if lost == self.lost_records || self.read_at.elapsed() < UNTOLD {
            return;
        }
        if let Err(error) = self.read_all() {
            warn!(%error, "the ledgers cannot be read");
        }
    }

    pub(super) fn read_last(&mut self, key: SubjectKey) -> Result<(), MapError> {
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
    pub(super) fn count_unseen(&mut self, key: SubjectKey) -> Result<(), MapError> {
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
}

/// Waits until all BPF programs that run now have ended: they run under RCU, and
/// `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` (kernel/sched/membarrier.c). Takes some milliseconds.
pub(super) fn wait_for_programs() {
    // SAFETY: the call takes numbers.
    let status = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if status != 0 {
        // Where CPUs are without a tick (nohz_full) there is no such call; programs run for
        // microseconds.
        thread::sleep(PROGRAMS);
    }
}
