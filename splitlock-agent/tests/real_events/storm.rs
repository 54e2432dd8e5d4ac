//! A storm: many processes and guests that trap as fast as they can, while somebody scrapes. What
//! they made is what the ledgers have, and the agent hardly notices.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{Child, Event, kvm_guest::Guest},
    figures::{Figures, median},
    guests::vm,
    processes::checks,
    requirements::{
        self,
        Requirement::{AlignmentChecks, Kvm, Root},
        missed,
    },
};

pub const TESTS: &[Test] = &[Test {
    name: "storm::every_trap_is_counted",
    needs: &[Root, Kvm, AlignmentChecks],
    run: every_trap_is_counted,
}];

const PROCESSES: u64 = 64;
const GUESTS: u64 = 8;
/// A guest's trap takes many times what a process's does: it ends in a triple fault.
const PROCESS_TRAPS_PER_GUEST_TRAP: u64 = 4;
/// Of one subject, the agent's default.
const RECORDS_PER_SECOND: u64 = 10;
/// Between two scrapes.
const INTERVAL: Duration = Duration::from_millis(500);

fn every_trap_is_counted() {
    let traps = if requirements::in_rig() {
        20_000
    } else {
        200_000
    };
    let figures = make(traps);
    eprintln!("{figures}");
}

/// Makes about so many traps, checks that each was counted, and tells what they cost.
pub fn make(traps: u64) -> Figures {
    let per_guest = traps / (GUESTS + PROCESSES * PROCESS_TRAPS_PER_GUEST_TRAP);
    let per_process = per_guest * PROCESS_TRAPS_PER_GUEST_TRAP;
    let agent = Agent::start_prepared(&[], give_a_session);
    let mut processes: Vec<Child> = (0..PROCESSES)
        .map(|index| {
            let event = Event::AlignmentCheck {
                count: per_process,
                threads: 1,
            };
            Child::spawn(&event, &format!("storm-{index}"))
        })
        .collect();
    let mut guests: Vec<Child> = (0..GUESTS)
        .map(|_| {
            let event = Event::KvmGuest {
                guest: Guest::AlignmentCheck,
                count: per_guest,
                vcpus: 1,
            };
            Child::spawn(&event, "storm-guest")
        })
        .collect();
    let before = Load::of(&agent);
    let start = Instant::now();
    for child in processes.iter_mut().chain(&mut guests) {
        child.go();
    }
    let scraping = Scraping::start(&agent);
    for child in &mut processes {
        assert_eq!(child.results().get("bus_adraln"), per_process);
    }
    for child in &mut guests {
        assert_eq!(child.results().get("shutdown"), per_guest);
    }
    let time = start.elapsed();
    let scrapes = scraping.end();
    let load = Load::of(&agent).since(&before);
    let metrics = agent.metrics();
    check(&metrics, &processes, per_process, &guests, per_guest);
    let made = PROCESSES * per_process + GUESTS * per_guest;
    check_records(&metrics, made, time);

    let seconds = time.as_secs_f64();
    let mut figures = Figures::default();
    figures.add("traps", made as f64);
    figures.add("traps per second", made as f64 / seconds);
    figures.add(
        "percent of a CPU for the agent",
        load.cpu_seconds / seconds * 100.0,
    );
    figures.add(
        "wake-ups of the agent per second",
        load.wakeups as f64 / seconds,
    );
    figures.add("milliseconds of a scrape, the median", median(&scrapes));
    figures.add(
        "milliseconds of a scrape, the slowest",
        scrapes.iter().copied().fold(0.0, f64::max),
    );
    figures
}

/// A scheduling group of its own, as a service has: the scheduler shares the CPUs among cgroups, or
/// sessions (autogroup), first. It ends with the test even so.
fn give_a_session(command: &mut Command) {
    let prepare = || {
        // SAFETY: two system calls without memory.
        let status = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::setsid()
        };
        if status == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: async-signal-safe.
    unsafe { command.pre_exec(prepare) };
}

/// Each subject has what it made, and no trap is anybody else's.
#[track_caller]
fn check(
    metrics: &Metrics,
    processes: &[Child],
    per_process: u64,
    guests: &[Child],
    per_guest: u64,
) {
    let mut uncounted = 0;
    let mut compare = |series: String, made: u64| {
        let counted = metrics.count(&series);
        assert!(counted <= made, "{series} {counted} of {made}");
        uncounted += made - counted;
    };
    for (index, child) in processes.iter().enumerate() {
        compare(checks(&format!("storm-{index}"), child.pid()), per_process);
    }
    for child in guests {
        let vm = vm(child.pid(), "storm-guest");
        compare(format!("splitlock_vm_ac_injected_total{{{vm}}}"), per_guest);
    }
    // On a preemptible kernel, what it says that it skipped.
    let skipped = missed(metrics, "signal_generate") + missed(metrics, "kvm_inj_exception");
    assert!(
        uncounted <= skipped,
        "{uncounted} uncounted, {skipped} skipped"
    );
}

/// Each subject's records are limited, and those that are not written are counted.
#[track_caller]
fn check_records(metrics: &Metrics, made: u64, time: Duration) {
    let lost = |cause| metrics.count(&format!(r#"splitlock_lost_total{{cause="{cause}"}}"#));
    // Two windows more: the second that had begun, and the one that has not ended.
    let windows = time.as_secs() + 2;
    let written = (PROCESSES + GUESTS) * RECORDS_PER_SECOND * windows;
    let suppressed = lost("record_rate_limit") + lost("record_ring_full");
    assert!(
        suppressed + written >= made,
        "of {made} traps {suppressed} have no record, and {written} may have one"
    );
}

/// What a process has used.
struct Load {
    cpu_seconds: f64,
    /// How often one of its threads went to sleep.
    wakeups: u64,
}

impl Load {
    #[track_caller]
    fn of(agent: &Agent) -> Self {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent runs");
        let (mut nanoseconds, mut wakeups) = (0, 0);
        for task in tasks {
            let task = task.expect("an entry").path();
            // A thread may have ended meanwhile.
            let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
            let number =
                |text: Option<&str>| text.map_or(0, |text| text.trim().parse().unwrap_or(0));
            nanoseconds += number(read("schedstat").split(' ').next());
            wakeups += number(
                read("status")
                    .lines()
                    .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")),
            );
        }
        Self {
            cpu_seconds: nanoseconds as f64 / 1e9,
            wakeups,
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            wakeups: self.wakeups.saturating_sub(before.wakeups),
        }
    }
}

/// Somebody who scrapes at an interval.
struct Scraping {
    is_over: Arc<AtomicBool>,
    times: thread::JoinHandle<Vec<f64>>,
}

impl Scraping {
    fn start(agent: &Agent) -> Self {
        let url = format!("http://{}/metrics", agent.address());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let times = thread::spawn(move || {
            let mut times = vec![];
            // The client is not what is measured.
            // SAFETY: the call takes numbers; if it is refused, the times are longer.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
            loop {
                let start = Instant::now();
                let answer = ureq::get(&url).call().expect("the agent answers");
                let text = answer.into_body().read_to_string().expect("a text");
                times.push(start.elapsed().as_secs_f64() * 1000.0);
                assert!(text.contains("splitlock_build_info"));
                if over.load(Ordering::Relaxed) {
                    return times;
                }
                thread::sleep(INTERVAL);
            }
        });
        Self { is_over, times }
    }

    /// The milliseconds that each took.
    #[track_caller]
    fn end(self) -> Vec<f64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.times.join().expect("all were answered")
    }
}
