//! An agent whose cgroup has little memory.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::programs::loaded_programs;

use super::super::{
    Test,
    agent::{Agent, programs_of},
    crowds::{check_sums, crowd},
    events::{
        crowd::Each,
        trap_module::{Mode, set_mode},
    },
    requirements::Requirement::{MemoryLimits, Root, TrapModule},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "faults_of_the_machine::ten_thousand_subjects_fit_into_what_the_agent_needs",
        needs: &[Root, TrapModule, MemoryLimits],
        run: ten_thousand_subjects_fit_into_what_the_agent_needs,
    },
    Test {
        name: "faults_of_the_machine::an_agent_killed_for_want_of_memory_leaves_nothing",
        needs: &[Root, TrapModule, MemoryLimits],
        run: an_agent_killed_for_want_of_memory_leaves_nothing,
    },
];

const ROOT: &str = "/sys/fs/cgroup";

/// Whether cgroups can limit memory.
pub fn available() -> Result<(), String> {
    let file = Path::new(ROOT).join("cgroup.controllers");
    let controllers =
        fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    if controllers.split_whitespace().any(|one| one == "memory") {
        Ok(())
    } else {
        Err(format!(
            "{ROOT} has no controller of memory, only {controllers:?}"
        ))
    }
}

/// A cgroup with the agent alone, all its processes.
struct Confined {
    folder: PathBuf,
}

impl Confined {
    #[track_caller]
    fn make(name: &str) -> Self {
        let subtree = Path::new(ROOT).join("cgroup.subtree_control");
        fs::write(subtree, "+memory").expect("memory is controlled");
        let folder = Path::new(ROOT).join(name);
        fs::create_dir(&folder).expect("a new cgroup");
        Self { folder }
    }

    /// An agent that has never been anywhere else.
    #[track_caller]
    fn start(&self, args: &[&str]) -> Agent {
        let procs = self.folder.join("cgroup.procs");
        Agent::start_prepared(args, |command| {
            use std::os::unix::process::CommandExt as _;
            let file = fs::OpenOptions::new().write(true).open(&procs);
            let file = file.expect("the cgroup is there");
            // SAFETY: one write to a file that is open.
            unsafe { command.pre_exec(move || io::Write::write_all(&mut &file, b"0")) };
        })
    }

    fn limit(&self, bytes: u64) {
        // Refused where the kernel cannot get so low without the killer, which then has come.
        let _ = fs::write(self.folder.join("memory.max"), bytes.to_string());
    }

    #[track_caller]
    fn number(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.folder.join(file)).expect("the cgroup has it");
        text.trim().parse().expect("a number")
    }

    #[track_caller]
    fn event(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.folder.join("memory.events")).expect("it is there");
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{name} in {text}"))
    }

    #[track_caller]
    fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.folder.join("cgroup.procs")).expect("it is there");
        text.lines()
            .map(|pid| pid.parse().expect("a pid"))
            .collect()
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let start = Instant::now();
        while fs::remove_dir(&self.folder).is_err() && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What the agent may take beyond what it takes at rest, kernel memory, its maps and the
/// answers to scrapes included.
const MARGIN: u64 = 28 << 20;

fn ten_thousand_subjects_fit_into_what_the_agent_needs() {
    const SUBJECTS: u32 = 10_000;
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let cgroup = Confined::make("faults-crowd");
    let agent = cgroup.start(&["--limit.processes", "20000", "--limit.workloads", "20000"]);
    let at_rest = cgroup.number("memory.current");
    cgroup.limit(at_rest + MARGIN);
    crowd(Each::SplitLock, "fit", SUBJECTS);
    let metrics = check_sums(&agent, SUBJECTS);
    let named = metrics.family("splitlock_process_traps_total");
    eprintln!(
        "{at_rest} bytes at rest, {} with {} subjects, limit reached {} times",
        cgroup.number("memory.current"),
        named.len(),
        cgroup.event("max "),
    );
    assert_eq!(cgroup.event("oom_kill "), 0);
}

fn an_agent_killed_for_want_of_memory_leaves_nothing() {
    let _mode = set_mode(Mode::Fatal).expect("the mode is set");
    let cgroup = Confined::make("faults-killed");
    let agent = cgroup.start(&[]);
    crowd(Each::SplitLock, "kill", 500);
    agent.metrics();
    let programs: BTreeSet<u32> = cgroup
        .processes()
        .into_iter()
        .flat_map(programs_of)
        .collect();
    assert!(programs.len() >= 3, "{programs:?}");
    let folder = format!("/proc/{}", agent.pid());
    let has_ended = || {
        let stat = fs::read_to_string(format!("{folder}/stat")).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_none_or(|rest| rest.trim_start().starts_with('Z'))
    };
    // Less and less: what is not in use goes first, and a helper may before the agent.
    let start = Instant::now();
    let mut limit = cgroup.number("memory.current");
    while !has_ended() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it lives with {limit} bytes"
        );
        limit = limit / 4 * 3;
        cgroup.limit(limit);
        // It needs memory to answer.
        let _ = ureq::get(format!("http://{}/metrics", agent.address()))
            .config()
            .timeout_global(Some(Duration::from_secs(1)))
            .build()
            .call();
    }
    assert!(cgroup.event("oom_kill ") >= 1);
    let (status, _) = agent.end(0);
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGKILL)
    );
    let start = Instant::now();
    loop {
        let left: Vec<u32> = loaded_programs()
            .filter_map(|program| Some(program.ok()?.id()))
            .filter(|id| programs.contains(id))
            .collect();
        let processes = cgroup.processes();
        if left.is_empty() && processes.is_empty() {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "left: programs {left:?}, processes {processes:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
    // What a service manager does.
    cgroup.limit(u64::MAX >> 1);
    let agent = cgroup.start(&[]);
    crowd(Each::SplitLock, "again", 100);
    check_sums(&agent, 100);
}
