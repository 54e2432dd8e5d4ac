//! The agent at work: one task that owns the ledgers and the table, and answers for snapshots.
//!
//! The ledgers are read for a snapshot and at a subject's death, not by a timer.

mod brake;
pub mod events;
mod facts;
pub mod helpers;
mod life;
mod log;
pub(crate) mod mode;
mod show;
mod vms;
mod waiting;

use std::{
    future::pending,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::MapError;
use splitlock_common::{
    Loss,
    ledger::comm_bytes,
    record::{KIND_EVENT, KIND_VCPU},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::warn;

pub use self::facts::{Facts, Sources};
use self::{
    brake::Brake, events::EventLines, helpers::Helpers, life::Reclaiming, log::LogReports,
    vms::VmWatch, waiting::Waiting,
};
use crate::{
    code::{
        symbolizer::{Busy, Symbolizer},
        turns::Group,
    },
    detection::Monitor,
    host,
    intake::{
        kernel_log::{Batch, KernelLog},
        ledgers::Ledgers,
        records::{Records, Told},
        vcpus::{Vcpus, vcpu_of},
    },
    probes::programs::Programs,
    subjects::{
        SubjectId,
        death::{self, Deaths},
        identity::{Identity, Why},
        inquiries::Inquiries,
        vmm::vcpu::vcpu_number,
    },
    table::{
        Table,
        sites::{SiteKey, Sites},
        snapshot::{Snapshot, SubjectDetail},
        stories::Stories,
    },
};

/// Before asking again what the kernel refused to tell.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes the answer to a question. It fails only if the kernel refuses a ledger.
pub type Answer<T> = oneshot::Sender<Result<T, MapError>>;

/// A question to the agent.
pub enum Request {
    /// What is there to show?
    Snapshot(Answer<Arc<Snapshot>>),
    /// What is known of one subject? Nothing, if it has no series.
    Subject(SubjectId, Answer<Option<Box<SubjectDetail>>>),
    /// Take off all hooks, and go on to serve what was counted.
    Detach,
    /// Do you still work? Nothing is read for it.
    Pulse(oneshot::Sender<()>),
}

/// The agent's state. One task owns it.
struct Agent {
    facts: Facts,
    follows_calls: bool,
    brake: Option<Brake>,
    monitor: Monitor,
    mode_address: Option<u64>,
    programs: Programs,
    ledgers: Ledgers,
    /// `None` once it cannot be read any more.
    records: Option<Records>,
    vcpus: Vcpus,
    reclaiming: Option<Reclaiming>,
    /// Claims of rows that were seen when rows were given back last.
    reclaimed_at: u64,
    table: Table,
    /// When the ledgers were read last, and the records that had been lost by then.
    read_at: Instant,
    lost_records: u64,
    /// When the table was last asked to forget.
    expired_at: Instant,
    /// The most subjects that there were since memory was given back.
    most_subjects: usize,
    /// Whether memory was given back in the middle of a crowd's going.
    crowd_has_gone: bool,
    stories: Stories,
    sites: Sites,
    symbolizer: Symbolizer<SiteKey>,
    helpers: Helpers,
    event_lines: Option<EventLines>,
    inquiries: Inquiries,
    log_reports: LogReports,
    log_history: Option<LogReports>,
    deaths: Deaths,
    /// Subjects whose end could not be watched, as no descriptor was free.
    unwatched: Vec<SubjectId>,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody can ask any more.
    Unasked,
    /// KVM was loaded, whose hooks were not there to be attached to at the start.
    KvmLoaded,
}

/// Runs until nobody can ask any more, or it has to be started anew.
pub async fn run(
    sources: Sources,
    table: Table,
    facts: Facts,
    monitor: Monitor,
    event_lines: Option<EventLines>,
    helpers: Helpers,
    mut requests: mpsc::Receiver<Request>,
) -> End {
    let mut kernel_log = sources.kernel_log;
    let mut mode_address = Some(mode::look_up(sources.symbols));
    let mut vm_watch = VmWatch::start(sources.vm_events, facts.paths.clone(), &helpers);
    let mut waiting = Waiting::default();
    let sites = Sites::new(facts.general_registers);
    let symbolizer = helpers.symbolizer(&facts.paths);
    let mut agent = Agent {
        follows_calls: facts.follows_calls(),
        inquiries: helpers.inquiries(&facts.paths),
        facts,
        brake: None,
        monitor,
        mode_address: None,
        programs: sources.programs,
        ledgers: sources.ledgers,
        records: Some(sources.records),
        vcpus: Vcpus::default(),
        reclaiming: None,
        reclaimed_at: 0,
        table,
        read_at: Instant::now(),
        lost_records: 0,
        expired_at: Instant::now(),
        most_subjects: 0,
        crowd_has_gone: false,
        stories: Stories::default(),
        sites,
        symbolizer,
        helpers,
        event_lines,
        log_reports: LogReports::default(),
        log_history: sources.log_history.map(|history| {
            let mut reports = LogReports::default();
            reports.add(&history);
            reports
        }),
        deaths: sources.deaths,
        unwatched: vec![],
    };
    agent.look_at_host();
    agent.release_brake(agent.facts.max_overhead);
    let mut records = vec![];
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(Request::Detach) => {
                    agent.detach_all();
                    kernel_log = None;
                }
                Some(request) => agent.take_request(request, &mut waiting),
                None => return End::Unasked,
            },
            () = waiting.is_over() => agent.answer(&mut waiting),
            identity = agent.inquiries.next() => {
                agent.take_name(&identity);
                if agent.inquiries.is_idle() {
                    agent.answer(&mut waiting);
                }
            }
            (site, code) = agent.symbolizer.next() => agent.sites.learn(site, code),
            ended = agent.deaths.next() => match ended {
                Ok(ended) => ended.into_iter().for_each(|subject| agent.bury(subject)),
                Err(error) => {
                    warn!(%error, "ends of subjects cannot be learnt");
                    sleep(PAUSE).await;
                }
            },
            () = Reclaiming::programs(&mut agent.reclaiming) => {
                if let Err(error) = agent.finish_reclaiming() {
                    warn!(%error, "rows of ended vCPU threads cannot be freed");
                }
            }
            result = next_records(&mut agent.records, &mut records) => match result {
                Ok(()) => {
                    agent.take_records(&mut records);
                    agent.find_the_untold();
                }
                Err(error) => {
                    warn!(%error, "the ring buffer cannot be read any more; counts go on, stories end");
                    agent.records = None;
                }
            },
            () = EventLines::is_due(&agent.event_lines) => {}
            () = Brake::is_due(&agent.brake) => agent.brake(),
            found = vm_watch.next() => {
                if vm_watch.kvm_was_loaded() && agent.facts.lacks_kvm {
                    return End::KvmLoaded;
                }
                agent.meet_vms(&found);
            }
            address = known(&mut mode_address) => {
                mode_address = None;
                agent.mode_address = address;
                agent.look_at_host();
            }
            result = next_log(&mut kernel_log) => match result {
                Ok(batch) => agent.take_log(&batch),
                Err(error) => {
                    warn!(%error, "the kernel log cannot be read any more");
                    kernel_log = None;
                }
            },
        }
        agent.ask_who_is_new();
        agent.write_events();
    }
}

async fn next_records(source: &mut Option<Records>, records: &mut Vec<Told>) -> io::Result<()> {
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
    fn take_records(&mut self, records: &mut Vec<Told>) {
        for told in records.drain(..) {
            let record = told.record;
            if record.kind == KIND_VCPU {
                self.vcpus.add(
                    vcpu_of(&record),
                    record.event,
                    vcpu_number(comm_bytes(&record.comm)),
                    &self.ledgers.rows,
                );
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
                self.look_at(&told);
                self.log_event(record);
            }
        }
    }

    /// Notes where an event was, and asks what is there if nobody knows yet.
    fn look_at(&mut self, told: &Told) {
        let Some((site, question)) = self.sites.add(told) else {
            return;
        };
        // The file that it runs helps where the process has ended meanwhile.
        let who = self.table.who(site.subject, false);
        let exe = who.as_ref().map(|who| who.owner.exe.as_str());
        // Whoever has most questions open goes without where there are too many.
        let group = Group::of(site.subject, told.record.cgroup_id);
        if let Err(Busy(site)) = self.symbolizer.ask(site, group, question, exe) {
            self.sites.forget_question(site);
            self.table.add_lost(Loss::CodeQueueFull, 1);
        }
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

    /// Names a subject, and counts once for each cause what could not be learnt of it.
    fn take_name(&mut self, identity: &Identity) {
        for (why, loss) in [
            (Why::Ended, Loss::IdentityEnded),
            (Why::Overdue, Loss::IdentityOverdue),
            (Why::Unreadable, Loss::IdentityUnreadable),
        ] {
            if identity.missing.iter().any(|missing| missing.why == why) {
                self.table.add_lost(loss, 1);
            }
        }
        // A VM that is started again is named before its last life's end is heard of, if many ended.
        if let Some(rival) = self.table.rival(identity) {
            if death::has_ended(&self.facts.paths, rival) {
                self.bury(rival);
            } else {
                warn!(
                    pid = identity.subject.pid,
                    rival = rival.pid,
                    "two VMs that run have one UUID; the later one is told by pid and start time"
                );
            }
        }
        self.table.name(identity);
    }

    /// Asks who the subjects are that are new, and may not be there for long.
    fn ask_who_is_new(&mut self) {
        for question in self.table.take_unnamed() {
            self.inquiries.ask(question);
        }
    }
}
