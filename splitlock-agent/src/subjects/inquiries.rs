//! Asking who subjects are without waiting for the answers.
//!
//! Reading `/proc/PID/cmdline` takes the lock of the process's memory map, which the process can hold
//! for long, and other files of `/proc` may wait for a file system that its owner serves. So another thread asks, one subject after the other; when it is stuck,
//! the subject is named by what the kernel side wrote down, and a new thread goes on.

use std::{
    collections::{HashMap, VecDeque},
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
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::{
    SubjectId,
    identity::{Identity, Question, Why},
    resolver::Resolver,
};

/// For one subject. Reading it takes about 0.1 ms.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that a thread is given ahead, so that it never idles; the others wait where VMs pass
/// processes.
const AHEAD: usize = 16;
/// Threads that may be stuck at a time. With all of them stuck, subjects are named by the kernel
/// side's word alone.
const STUCK_LIMIT: usize = 8;

type Ask = dyn Fn(&Question) -> Identity + Send + Sync;
type AskKernel = dyn Fn(&Question, Why) -> Identity + Send + Sync;

/// The questions that are open, and who answers them.
pub struct Inquiries {
    ask: Arc<Ask>,
    by_kernel_alone: Arc<AskKernel>,
    /// What the worker was given, in the order of the answers.
    open: VecDeque<Question>,
    /// What waits.
    waiting: HashMap<SubjectId, Question>,
    /// In which order: VMs, and processes that are none. Some may not wait any more.
    order: [VecDeque<SubjectId>; 2],
    /// When the first of them is overdue.
    due: Instant,
    worker: Option<Sender<Question>>,
    /// Number of the worker; answers of an earlier one come too late.
    generation: u64,
    /// Held by every worker that has not ended.
    alive: Arc<()>,
    answers: UnboundedReceiver<(u64, Identity)>,
    sender: UnboundedSender<(u64, Identity)>,
    patience: Duration,
    overdue: u64,
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
    /// Asks a resolver.
    pub fn of(resolver: Resolver) -> Self {
        let resolver = Arc::new(resolver);
        let other = Arc::clone(&resolver);
        Self::new(
            Arc::new(move |question| Identity {
                is_vm: question.is_vm,
                ..resolver.identify(question.subject, &question.seen())
            }),
            Arc::new(move |question, why| Identity {
                is_vm: question.is_vm,
                ..other.by_kernel_alone(question.subject, &question.seen(), why)
            }),
            PATIENCE,
        )
    }

    fn new(ask: Arc<Ask>, by_kernel_alone: Arc<AskKernel>, patience: Duration) -> Self {
        let (sender, answers) = unbounded_channel();
        Self {
            ask,
            by_kernel_alone,
            open: VecDeque::new(),
            waiting: HashMap::new(),
            order: Default::default(),
            due: Instant::now(),
            worker: None,
            generation: 0,
            alive: Arc::new(()),
            answers,
            sender,
            patience,
            overdue: 0,
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
        let question = self.waiting.remove(&subject)?;
        Some((self.by_kernel_alone)(&question, Why::Ended))
    }

    fn hand_out(&mut self) {
        if self.waiting.is_empty() {
            // Of those that had ended, and of a crowd the room as well.
            for order in &mut self.order {
                order.clear();
                order.shrink_to(AHEAD);
            }
            self.waiting.shrink_to(AHEAD);
        }
        while self.open.len() < AHEAD
            && let Some(subject) = self.order.iter_mut().find_map(VecDeque::pop_front)
        {
            let Some(question) = self.waiting.remove(&subject) else {
                continue;
            };
            if self.open.is_empty() {
                self.due = Instant::now() + self.patience;
            }
            self.open.push_back(question.clone());
            match &self.worker {
                // One that has died is noticed when the answer is due.
                Some(worker) => drop(worker.send(question)),
                None => self.start_worker(),
            }
        }
    }

    /// Whether everything was answered.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty()
    }

    /// How many subjects were named by the kernel side's word, as their answer did not come.
    pub const fn overdue(&self) -> u64 {
        self.overdue
    }

    /// The next answer; waits for ever while nothing is asked.
    pub async fn next(&mut self) -> Identity {
        loop {
            let answer = tokio::select! {
                answer = self.answers.recv() => answer,
                () = sleep_until(self.due), if !self.open.is_empty() => None,
            };
            match answer {
                Some((generation, identity)) if generation == self.generation => {
                    self.open.pop_front();
                    self.due = Instant::now() + self.patience;
                    self.hand_out();
                    return identity;
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
        self.worker = None;
        self.generation += 1;
        self.start_worker();
        Some((self.by_kernel_alone)(&question, Why::Overdue))
    }

    /// Starts a worker with all open questions. Where there can be none, all are overdue at once.
    fn start_worker(&mut self) {
        self.due = Instant::now();
        if Arc::strong_count(&self.alive) > STUCK_LIMIT {
            return;
        }
        match self.spawn() {
            Ok(worker) => {
                for open in &self.open {
                    let _ = worker.send(open.clone());
                }
                self.worker = Some(worker);
                self.due += self.patience;
            }
            Err(error) => warn!(%error, "no thread to ask who subjects are"),
        }
    }

    fn spawn(&self) -> io::Result<Sender<Question>> {
        let (sender, questions): (_, Receiver<Question>) = mpsc::channel();
        let (ask, answers) = (Arc::clone(&self.ask), self.sender.clone());
        let (alive, generation) = (Arc::clone(&self.alive), self.generation);
        thread::Builder::new()
            .name("identities".to_owned())
            .spawn(move || {
                let _alive = alive;
                for question in questions {
                    if answers.send((generation, ask(&question))).is_err() {
                        break;
                    }
                }
            })?;
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;
    use crate::subjects::{
        SubjectId,
        vmm::{Evidence, VmNaming, Vmm},
    };

    /// Nothing is overdue by it, however busy the machine.
    const LONG: Duration = Duration::from_secs(60);
    /// Only who is stuck takes so long.
    const SHORT: Duration = Duration::from_millis(700);

    fn question(pid: u32) -> Question {
        Question {
            subject: SubjectId {
                pid,
                start_ticks: 1,
            },
            comm: "a".to_owned(),
            cgroup_id: 0,
            is_vm: pid >= 1000,
        }
    }

    fn identity(question: &Question, exe: Option<&str>) -> Identity {
        Identity {
            subject: question.subject,
            comm: question.comm.clone(),
            exe: exe.map(str::to_owned),
            command_line: None,
            cgroup: None,
            vm: VmNaming {
                name: question.comm.clone(),
                uuid: None,
                vmm: Vmm::Other,
                evidence: Evidence::Comm,
            },
            is_vm: question.is_vm,
            missing: vec![],
        }
    }

    /// Answers about odd pids do not come while `stuck` is set.
    fn inquiries(stuck: &Arc<AtomicBool>, patience: Duration) -> Inquiries {
        let stuck = Arc::clone(stuck);
        Inquiries::new(
            Arc::new(move |question| {
                while question.subject.pid % 2 == 1 && stuck.load(Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                identity(question, Some("/bin/a"))
            }),
            Arc::new(|question, _why| identity(question, None)),
            patience,
        )
    }

    async fn answers(inquiries: &mut Inquiries, pids: &[u32]) -> Vec<(u32, bool)> {
        for pid in pids {
            inquiries.ask(question(*pid));
        }
        let mut answers = vec![];
        while !inquiries.is_idle() {
            let answer = inquiries.next().await;
            answers.push((answer.subject.pid, answer.exe.is_some()));
        }
        answers
    }

    #[tokio::test]
    async fn everyone_is_answered_in_order() {
        let mut inquiries = inquiries(&Arc::default(), LONG);
        let pids: Vec<u32> = (0..100).collect();
        let expected: Vec<(u32, bool)> = pids.iter().map(|pid| (*pid, true)).collect();
        assert_eq!(answers(&mut inquiries, &pids).await, expected);
        assert_eq!(answers(&mut inquiries, &[7]).await, [(7, true)]);
        assert_eq!(inquiries.overdue(), 0);
    }

    #[tokio::test]
    async fn vms_pass_processes() {
        let mut inquiries = inquiries(&Arc::default(), LONG);
        let pids: Vec<u32> = (0..100).chain([1000]).collect();
        let answers = answers(&mut inquiries, &pids).await;
        assert_eq!(answers.len(), 101);
        let place = answers.iter().position(|answer| answer.0 == 1000);
        assert_eq!(place, Some(AHEAD));
    }

    #[tokio::test]
    async fn the_ended_do_not_wait() {
        let mut inquiries = inquiries(&Arc::default(), LONG);
        let pids: Vec<u32> = (0..100).collect();
        for pid in &pids {
            inquiries.ask(question(*pid));
        }
        let ended = |inquiries: &mut Inquiries, pid| {
            let identity = inquiries.answer_of_ended(question(pid).subject);
            identity.map(|identity| (identity.subject.pid, identity.exe))
        };
        assert_eq!(ended(&mut inquiries, 50), Some((50, None)));
        assert_eq!(ended(&mut inquiries, 50), None, "answered");
        assert_eq!(ended(&mut inquiries, 0), None, "somebody looks at it");
        let mut answers = vec![];
        while !inquiries.is_idle() {
            answers.push(inquiries.next().await.subject.pid);
        }
        let others: Vec<u32> = pids.into_iter().filter(|pid| *pid != 50).collect();
        assert_eq!(answers, others);
    }

    #[tokio::test]
    async fn who_holds_the_answer_up_is_named_without_it_and_holds_up_nobody_else() {
        let stuck = Arc::new(AtomicBool::new(true));
        let mut inquiries = inquiries(&stuck, SHORT);
        let found = answers(&mut inquiries, &[2, 1, 4, 3, 6]).await;
        let expected = [(2, true), (1, false), (4, true), (3, false), (6, true)];
        assert_eq!(found, expected);
        assert_eq!(inquiries.overdue(), 2);
        stuck.store(false, Relaxed);
        // Answers that come too late are nobody's.
        assert_eq!(answers(&mut inquiries, &[8]).await, [(8, true)]);
    }

    #[tokio::test]
    async fn with_too_many_stuck_the_kernel_sides_word_is_all_until_one_is_free() {
        let stuck = Arc::new(AtomicBool::new(true));
        let mut inquiries = inquiries(&stuck, SHORT);
        let odd: Vec<u32> = (0..STUCK_LIMIT as u32).map(|n| 2 * n + 1).collect();
        answers(&mut inquiries, &odd).await;
        assert_eq!(answers(&mut inquiries, &[2]).await, [(2, false)]);
        stuck.store(false, Relaxed);
        while Arc::strong_count(&inquiries.alive) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(answers(&mut inquiries, &[2]).await, [(2, true)]);
    }
}
