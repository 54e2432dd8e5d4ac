//! The process that looks at tenants' files: bounded in everything, and none to be missed if it dies.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    panic,
    process::ExitCode,
};

use rustix::{
    process::{
        Resource, Rlimit, Signal, getppid, nice, set_parent_process_death_signal, setrlimit,
    },
    time::{ClockId, clock_gettime},
};
use tracing::debug;

use super::{
    look::{Looked, Looker},
    wire::{LINE_LIMIT, Reply, Request},
};
use crate::{confine::helpers, subjects::paths::Paths};

/// Bytes of address space: files are mapped whole.
const ADDRESSES: u64 = 16 << 30;
/// Bytes of memory of its own (from Linux 4.7 also what is mapped without a file).
const DATA: u64 = 384 << 20;
/// Bytes of memory above which another process goes on.
const ENOUGH_DATA: u64 = 128 << 20;
/// Files and bytes of them above which another process goes on: none is unmapped.
const ENOUGH_FILES: usize = 64;
const ENOUGH_BYTES: usize = 4 << 30;
/// Seconds of processor time for one question; the agent does not wait as long.
const SECONDS: u64 = 20;
/// Raises the kernel's inclination to end this process when memory runs out, to the most.
const FIRST_TO_GO: &str = "1000";

/// Answers questions from standard input on standard output until there are no more. Why it could not
/// go on it tells nobody: the agent hears that it did not.
pub fn run(paths: Paths) -> ExitCode {
    be_small();
    match answer(paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The same as a child of the keeper's.
pub fn run_confined(paths: Paths) {
    be_small();
    // Where the kernel has no filters, the keeper has told so.
    let _ = helpers::confine_reader(true);
    let _ = answer(paths);
}

fn answer(paths: Paths) -> io::Result<()> {
    // What it would say is of no use: the agent tells that it died.
    panic::set_hook(Box::new(|_| {}));
    let mut looker = Looker::new(paths);
    let mut questions = BufReader::new(io::stdin().lock());
    let mut line = vec![];
    loop {
        line.clear();
        let mut limited = (&mut questions).take(LINE_LIMIT as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let request: Request = serde_json::from_slice(&line)?;
        allow_time();
        let mut failure = Ok(());
        let looked = looker.look(&request, &mut |code, next| {
            let code = Box::new(code.clone());
            failure = say(&Reply::Sketch { code, next });
        });
        failure?;
        let Looked { code, learnt } = looked;
        let ends = has_enough(&looker);
        let code = Box::new(code);
        say(&Reply::Answer { code, learnt, ends })?;
        if ends {
            return Ok(());
        }
    }
}

fn say(reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    io::stdout().lock().write_all(&line)
}

/// Sets the bounds. One that the kernel refuses is one less; the agent's patience is left.
fn be_small() {
    let limit = |resource, value| {
        let limit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        if let Err(error) = setrlimit(resource, limit) {
            debug!(%error, ?resource, "a limit stays");
        }
    };
    // With the agent, even if it is killed.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // It may have died before that.
    if getppid().is_none() {
        std::process::exit(1);
    }
    limit(Resource::As, ADDRESSES);
    limit(Resource::Data, DATA);
    limit(Resource::Core, 0);
    limit(Resource::Fsize, 0);
    limit(Resource::Nofile, 64);
    let _ = nice(10);
    let _ = fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
}

/// Allows some processor time from now on.
fn allow_time() {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let limit = Rlimit {
        current: Some(u64::try_from(used).unwrap_or(0) + SECONDS),
        maximum: None,
    };
    let _ = setrlimit(Resource::Cpu, limit);
}

fn has_enough(looker: &Looker) -> bool {
    let (bytes, files) = looker.size();
    bytes > ENOUGH_BYTES || files > ENOUGH_FILES || data() > ENOUGH_DATA
}

/// Bytes of memory of its own that this process takes: `RssAnon`, proc_pid_status(5).
fn data() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let anonymous = status.lines().find_map(|line| {
        let value = line.strip_prefix("RssAnon:")?;
        value.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    anonymous.unwrap_or(0) * 1024
}
