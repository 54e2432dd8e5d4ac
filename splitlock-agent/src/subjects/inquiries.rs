//! Asking who subjects are without waiting for the answers.
//!
//! Reading `/proc/PID/cmdline` takes the lock of the process's memory map, which the process can hold
//! for long, and other files of `/proc` may wait for a file system that its owner serves. So somebody else
//! asks, one subject after the other: a process that the keeper has started, or where the agent keeps its
//! rights a thread. When it is stuck or dies, the subject is named by what the kernel side wrote down,
//! and another one goes on.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt, io,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::{
    SubjectId,
    cgroup::CgroupIdentity,
    identity::{Fact, Identity, Question, Why},
    resolver::{self, Resolver},
};
use crate::keeper::{Keeper, conversation::Conversation};

/// For one subject. Reading it takes about 0.1 ms.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that a thread is given ahead, so that it never idles; the others wait where VMs pass
/// processes.
const AHEAD: usize = 16;
/// Threads that may be stuck at a time. With all of them stuck, subjects are named by the kernel
/// side's word alone.
const STUCK_LIMIT: usize = 8;
/// Before another process is started after one that died; doubled for each that dies before it has
/// answered anything.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Cgroups that are remembered.
const CGROUPS: usize = 1024;

type Ask = dyn Fn(&Question) -> Identity + Send + Sync;
type AskKernel = dyn Fn(&Question, Why) -> Identity + Send + Sync;
/// The number of who answers, and the answer; without one, it has died.
type Answers = UnboundedSender<(u64, Option<Identity>)>;

/// Who answers questions, somewhere else.
enum Worker {
    Thread(Sender<Question>),
    /// The task that talks with a process; both end with this.
    Process(UnboundedSender<Question>, JoinHandle<()>),
}

/// How one is started.
enum Starter {
    Thread(Arc<Ask>),
    Process(Arc<Keeper>),
}

/// The questions that are open, and who answers them.
pub struct Inquiries {
    starter: Starter,
    by_kernel_alone: Arc<AskKernel>,
    /// Cgroups by their numbers, as far as answers told them or told that there are none: for who is
    /// named by the kernel side's word alone where nobody here may look a cgroup up.
    cgroups: HashMap<u64, Option<CgroupIdentity>>,
    /// Those that wait, have ended, and need but the name of their cgroup.
    ended: HashSet<SubjectId>,
    /// Answers that needed nobody.
    told: VecDeque<Identity>,
    /// What the worker was given, in the order of the answers.
    open: VecDeque<Question>,
    /// What waits.
    waiting: HashMap<SubjectId, Question>,
    /// In which order: VMs, and processes that are none. Some may not wait any more.
    order: [VecDeque<SubjectId>; 2],
    /// When the first of them is overdue.
    due: Instant,
    worker: Option<Worker>,
    /// Those that died since the last answer, all of them, and when the next may be started.
    deaths: u32,
    all_deaths: u64,
    pauses_until: Instant,
    /// Number of the worker; answers of an earlier one come too late.
    generation: u64,
    /// Held by every worker that has not ended.
    alive: Arc<()>,
    answers: UnboundedReceiver<(u64, Option<Identity>)>,
    sender: Answers,
    patience: Duration,
    overdue: u64,
    /// Times that nobody could be started since somebody could.
    failures: u64,
}

impl fmt::Debug for Inquiries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiries")
            .field("open", &self.open.len())
            .field("overdue", &self.overdue)
            .finish_non_exhaustive()
    }
}

impl Inquiries {
    /// Asks a resolver, from a thread of this process.
    pub fn of(resolver: Resolver) -> Self {
        let resolver = Arc::new(resolver);
        let other = Arc::clone(&resolver);
        Self::new(
            Starter::Thread(Arc::new(move |question| resolver.answer(question))),
            Arc::new(move |question, why| Identity {
                is_vm: question.is_vm,
                ..other.by_kernel_alone(question.subject, &question.seen(), why)
            }),
            PATIENCE,
        )
    }

    /// Asks processes that the keeper starts; the first one now, so that it is there for those that do
    /// not live long. To be called in a runtime.
    pub fn of_keeper(keeper: Arc<Keeper>) -> Self {
        let mut inquiries = Self::new(
            Starter::Process(keeper),
            Arc::new(|question, why| Identity {
                is_vm: question.is_vm,
                ..resolver::by_kernel_alone(question.subject, &question.seen(), None, why)
            }),
            PATIENCE,
        );
        inquiries.start_worker();
        inquiries
    }

    fn new(starter: Starter, by_kernel_alone: Arc<AskKernel>, patience: Duration) -> Self {
        let (sender, answers) = unbounded_channel();
        Self {
            starter,
            by_kernel_alone,
            cgroups: HashMap::new(),
            ended: HashSet::new(),
            told: VecDeque::new(),
            open: VecDeque::new(),
            waiting: HashMap::new(),
            order: Default::default(),
            due: Instant::now(),
            worker: None,
            deaths: 0,
            all_deaths: 0,
            pauses_until: Instant::now(),
            generation: 0,
            alive: Arc::new(()),
            answers,
            sender,
            patience,
            overdue: 0,
            failures: 0,
        }
    }

    /// Asks. The answer comes from [`Self::next`]. VMs pass processes, of which anybody can make
    /// thousands.
    pub fn ask(&mut self, question: Question) {
        self.order[usize::from(!question.is_vm)].push_back(question.subject);
        self.waiting.insert(question.subject, question);
        self.hand_out();
    }

    /// Answers about a subject that has ended, if nobody has begun to look at it: there is nothing
    /// to be seen any more.
    pub fn answer_of_ended(&mut self, subject: SubjectId) -> Option<Identity> {
        if let Starter::Process(_) = self.starter
            && self.worker.is_some()
            && let Some(question) = self.waiting.get(&subject)
            && question.cgroup_id != 0
            && !self.cgroups.contains_key(&question.cgroup_id)
        {
            // Only who may look a cgroup up can tell its path, and need not for all of a crowd.
            self.ended.insert(subject);
            return None;
        }
        let question = self.waiting.remove(&subject)?;
        Some(self.by_kernel_alone(&question, Why::Ended))
    }

    fn by_kernel_alone(&self, question: &Question, why: Why) -> Identity {
        match self.cgroups.get(&question.cgroup_id) {
            Some(cgroup) => Identity {
                is_vm: question.is_vm,
                ..resolver::by_kernel_alone(question.subject, &question.seen(), cgroup.clone(), why)
            },
            None => (self.by_kernel_alone)(question, why),
        }
    }

    /// Remembers which cgroup a number is of, if it is told: of who has ended, nothing else tells it.
    fn learn_cgroup(&mut self, cgroup_id: u64, identity: &Identity) {
        let has_ended = identity
            .missing
            .iter()
            .any(|missing| missing.fact == Fact::Exe && missing.why == Why::Ended);
        if let Starter::Process(_) = self.starter
            && has_ended
            && cgroup_id != 0
        {
            if self.cgroups.len() >= CGROUPS {
                self.cgroups.clear();
            }
            // A number is not given twice, so what is not there now will not be.
            self.cgroups.insert(cgroup_id, identity.cgroup.clone());
        }
    }

    /// Whether somebody is there to answer.
    pub const fn is_up(&self) -> bool {
        self.worker.is_some()
    }

    /// How many processes or threads that answer have died.
    pub const fn deaths(&self) -> u64 {
        self.all_deaths
    }

    fn hand_out(&mut self) {
        if self.waiting.is_empty() {
            // Of those that had ended, and of a crowd the room as well.
            for order in &mut self.order {
                order.clear();
                order.shrink_to(AHEAD);
            }
            self.waiting.shrink_to(AHEAD);
            self.ended.clear();
            self.ended.shrink_to(AHEAD);
        }
        while self.open.len() < AHEAD
            && let Some(subject) = self.order.iter_mut().find_map(VecDeque::pop_front)
        {
            let Some(question) = self.waiting.remove(&subject) else {
                continue;
            };
            if self.ended.remove(&subject) && self.cgroups.contains_key(&question.cgroup_id) {
                let identity = self.by_kernel_alone(&question, Why::Ended);
                self.told.push_back(identity);
                continue;
            }
            if self.open.is_empty() {
                self.due = Instant::now() + self.patience;
            }
            self.open.push_back(question.clone());
            match &self.worker {
                Some(worker) => worker.ask(question),
                None => self.start_worker(),
            }
        }
    }

    /// Whether everything was answered.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty() && self.told.is_empty()
    }

    /// How many subjects were named by the kernel side's word, as their answer did not come.
    pub const fn overdue(&self) -> u64 {
        self.overdue
    }

    /// The next answer; waits for ever while nothing is asked.
    pub async fn next(&mut self) -> Identity {
        loop {
            if let Some(identity) = self.told.pop_front() {
                return identity;
            }
            let answer = tokio::select! {
                answer = self.answers.recv() => answer,
                () = sleep_until(self.due), if !self.open.is_empty() => None,
            };
            match answer {
                Some((generation, Some(identity))) if generation == self.generation => {
                    let question = self.open.pop_front();
                    self.deaths = 0;
                    if let Some(question) = question {
                        self.learn_cgroup(question.cgroup_id, &identity);
                    }
                    self.due = Instant::now() + self.patience;
                    self.hand_out();
                    return identity;
                }
                Some((generation, None)) if generation == self.generation => {
                    if let Some(identity) = self.bury() {
                        self.hand_out();
                        return identity;
                    }
                }
                // Of a worker that was given up.
                Some(_) => {}
                None => {
                    if let Some(identity) = self.give_up() {
                        self.hand_out();
                        return identity;
                    }
                }
            }
        }
    }

    /// Answers the first open question without the worker, which is stuck at it, and has another
    /// one go on.
    fn give_up(&mut self) -> Option<Identity> {
        let question = self.open.pop_front()?;
        self.overdue += 1;
        if self.overdue == 1 {
            warn!(
                pid = question.subject.pid,
                "/proc does not tell who it is; it, and others of its kind, are named by what the \
                 kernel side knows"
            );
        }
        self.replace_worker();
        Some(self.by_kernel_alone(&question, Why::Overdue))
    }

    /// The worker has died. What it was at is answered without it, as that may be why.
    fn bury(&mut self) -> Option<Identity> {
        let pause = match self.deaths {
            // The first one is replaced at once.
            0 => Duration::ZERO,
            deaths => (PAUSE * 2_u32.saturating_pow(deaths.min(16))).min(LONGEST_PAUSE),
        };
        self.deaths += 1;
        self.all_deaths += 1;
        self.pauses_until = Instant::now() + pause;
        warn!(
            pause_seconds = pause.as_secs_f64(),
            "the process that tells who subjects are has died; until another one is there, they are \
             named by what the kernel side knows"
        );
        let question = self.open.pop_front();
        if question.is_some() {
            self.overdue += 1;
        }
        self.replace_worker();
        question.map(|question| self.by_kernel_alone(&question, Why::Overdue))
    }

    fn replace_worker(&mut self) {
        self.worker = None;
        self.generation += 1;
        self.start_worker();
    }

    /// Starts a worker with all open questions. Where there can be none, all are overdue at once.
    fn start_worker(&mut self) {
        self.due = Instant::now();
        if Arc::strong_count(&self.alive) > STUCK_LIMIT || self.due < self.pauses_until {
            return;
        }
        match self.spawn() {
            Ok(worker) => {
                for open in &self.open {
                    worker.ask(open.clone());
                }
                self.worker = Some(worker);
                self.due += self.patience;
            }
            Err(error) => {
                // Said once, and not for each of thousands.
                if self.failures == 0 {
                    warn!(%error, "nobody can ask who subjects are");
                }
                self.failures += 1;
                return;
            }
        }
        self.failures = 0;
    }

    fn spawn(&self) -> io::Result<Worker> {
        let (alive, generation) = (Arc::clone(&self.alive), self.generation);
        let answers = self.sender.clone();
        let ask = match &self.starter {
            Starter::Thread(ask) => Arc::clone(ask),
            Starter::Process(keeper) => {
                let conversation = Conversation::begin(keeper)?;
                conversation.hold(alive);
                let (sender, questions) = unbounded_channel();
                let task = tokio::spawn(converse(conversation, questions, generation, answers));
                return Ok(Worker::Process(sender, task));
            }
        };
        let (sender, questions): (_, Receiver<Question>) = mpsc::channel();
        thread::Builder::new()
            .name("identities".to_owned())
            .spawn(move || {
                let _alive = alive;
                for question in questions {
                    if answers.send((generation, Some(ask(&question)))).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Worker::Thread(sender))
    }
}

impl Worker {
    fn ask(&self, question: Question) {
        // One that has died says so itself, or is noticed when the answer is due.
        let _ = match self {
            Self::Thread(questions) => questions.send(question).is_ok(),
            Self::Process(questions, _) => questions.send(question).is_ok(),
        };
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Self::Process(_, task) = self {
            task.abort();
        }
    }
}

/// Puts questions to a process until it has died.
async fn converse(
    mut conversation: Conversation,
    mut questions: UnboundedReceiver<Question>,
    generation: u64,
    answers: Answers,
) {
    loop {
        let answer = tokio::select! {
            question = questions.recv() => match question {
                Some(question) => conversation.who(question).await.ok(),
                None => return,
            },
            () = conversation.is_over() => None,
        };
        let is_over = answer.is_none();
        if answers.send((generation, answer)).is_err() || is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
