//! What there is to show.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    time::Instant,
};

use aya::maps::MapError;
use splitlock_common::{Event, Hook, Loss, Origin};

use super::{Agent, log::LogReports};
use crate::{
    host::{
        clock::{boot_ns, unix_seconds},
        cpu::CpuFeatures,
    },
    memory,
    probes::{Detached, Probe, catalogue::Via, cost::Cost, meaning},
    subjects::SubjectId,
    table::snapshot::{
        Fullness, HostFacts, LedgerFullness, ProbeRow, ProbeRuns, RecordRing, SCHEMA, Snapshot,
        SubjectDetail,
    },
};

/// Subjects that are worth giving their memory back once most of them have gone.
const CROWD: usize = 400;

impl Agent {
    /// A snapshot of what was read.
    pub(super) fn snapshot(&mut self, ledgers: LedgerFullness) -> Snapshot {
        // Again, so that the host's totals are never behind the subjects'.
        self.table.read_host(self.ledgers.host());
        let (mut processes, mut vms) = (self.table.processes(), self.table.vms());
        for row in &mut processes {
            row.sites = self.sites.of(row.subject, false);
        }
        for row in &mut vms {
            row.sites = self.sites.of(row.subject, true);
        }
        Snapshot {
            schema: SCHEMA,
            taken_at: unix_seconds(boot_ns()),
            host: self.host_facts(),
            host_traps: self.table.host_traps(),
            processes,
            vms,
            workloads: self.table.workloads(),
            overflow_traps: self.table.overflow(),
            overflow_subjects: self.table.overflow_subjects(),
            lost: self.table.lost(),
            tracked: self.table.tracked(),
            ledgers,
            record_ring: self.records.as_ref().map(|records| RecordRing {
                used_bytes: records.waiting(),
                peak_bytes: records.peak(),
                size_bytes: self.facts.record_bytes,
            }),
            privileges: self.helpers.facts(&self.inquiries, &self.symbolizer),
            probes: self.probes(),
            kernel_log_reports: self.log_reports.by_name(),
            kernel_log_history: self.log_history.map(LogReports::by_name),
            recent: self.stories.tell(&self.sites),
        }
    }

    /// All that is known of one subject, as it was read last.
    pub(super) fn detail(&self, id: SubjectId) -> Option<Box<SubjectDetail>> {
        let (process, vm) = (self.table.process(id), self.table.vm(id));
        if process.is_none() && vm.is_none() {
            return None;
        }
        let (sites, other_records) = self.sites.detail(id);
        Some(Box::new(SubjectDetail {
            schema: SCHEMA,
            taken_at: unix_seconds(boot_ns()),
            process,
            vm,
            sites,
            other_records,
            recent: self.sites.recent(id),
        }))
    }

    /// Reads the ledgers, and tells how full they are.
    pub(super) fn read_all(&mut self) -> Result<LedgerFullness, MapError> {
        self.read_at = Instant::now();
        self.lost_records = self.ledgers.host().lost[Loss::RecordRingFull as usize];
        // An entry that a new subject inserts meanwhile may be missed; the next reading has it.
        let mut news = vec![];
        let mut entries = 0;
        self.ledgers.for_each_trap(|key, entry| {
            entries += 1;
            if self.table.read_trap(key, entry) {
                news.push(key);
            }
        })?;
        self.note_crowd();
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

    /// Lets go of those that ended long enough ago.
    pub(super) fn expire(&mut self) {
        self.expired_at = Instant::now();
        self.table.expire(self.expired_at);
        self.sites.retain(|id| self.table.knows(id));
        if mem::take(&mut self.crowd_has_gone) {
            memory::give_back();
        }
        self.note_crowd();
    }

    /// Gives memory back whenever half of a crowd have gone, a few times for each crowd, and once more
    /// later, when nothing is under way for them. To be told whenever subjects have come or gone.
    pub(super) fn note_crowd(&mut self) {
        let subjects = self.table.subject_count();
        self.most_subjects = self.most_subjects.max(subjects);
        if self.most_subjects >= CROWD && subjects <= self.most_subjects / 2 {
            self.most_subjects = subjects;
            self.crowd_has_gone = true;
            memory::give_back();
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
        let costs: HashMap<Hook, Cost> = self.programs.costs().collect();
        let mode = self.monitor.detection().mode;
        let row = |probe: &Probe| {
            let Probe {
                hook,
                via,
                authority: _,
                counts_exits: _,
                refusals,
                detached,
            } = probe;
            let cost = costs.get(hook);
            ProbeRow {
                probe: hook.name(),
                via: via.map(Via::name),
                counts: meaning::counts(probe, self.facts.kernel_version, mode).name(),
                refused: refusals
                    .iter()
                    .map(|refusal| format!("{}: {}", refusal.via.name(), refusal.reason))
                    .collect(),
                detached: detached.map(Detached::name),
                missed: cost.map(|cost| cost.missed),
                runs: cost
                    .filter(|_| self.facts.probe_statistics)
                    .map(|cost| ProbeRuns {
                        runs: cost.runs,
                        nanoseconds: cost.run_ns,
                    }),
            }
        };
        self.facts.probes.iter().map(row).collect()
    }
}
