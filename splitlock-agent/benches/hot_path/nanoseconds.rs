//! Nanoseconds of a run, by the kernel's BPF run statistics, on `kvm_userspace_exit`.
//!
//! All programs are attached at a time, in another order in each round: the first of a chain pays
//! for what the others then find in the cache. A part of each figure is the measurement itself,
//! two readings of the clock, so only differences tell.

use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use serde_json::json;

use super::{
    contenders::{self, Contender, Hook},
    guest,
};

const HOOK: Hook = Hook::UserspaceExit;

/// Prints one line for each program and round. `peer`, if not empty, is the path of bpftrace.
pub fn measure(rounds: usize, count: u64, peer: &[&str]) -> Result<()> {
    let _on = enable_stats(Stats::RunTime).context("turning BPF run statistics on")?;
    let mut contenders = contenders::load(HOOK);
    for round in 0..rounds {
        contenders.rotate_left(1);
        let peer = match peer {
            [] => None,
            [program, ..] => Some(Peer::start(program)?),
        };
        for contender in &mut contenders {
            contender.attach(HOOK)?;
        }
        let before = readings(&mut contenders, peer.as_ref())?;
        guest::write_to_port(count)?;
        let after = readings(&mut contenders, peer.as_ref())?;
        for contender in &mut contenders {
            contender.detach()?;
        }
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            let runs = after.runs - before.runs;
            if runs < count {
                bail!("{name} ran {runs} times at {count} returns");
            }
            let nanoseconds = (after.time - before.time).as_nanos() as f64 / runs as f64;
            println!(
                "{}",
                json!({"name": name, "round": round, "nanoseconds": nanoseconds})
            );
        }
    }
    Ok(())
}

struct Reading {
    runs: u64,
    time: Duration,
}

impl From<ProgramInfo> for Reading {
    fn from(info: ProgramInfo) -> Self {
        Self {
            runs: info.run_count(),
            time: info.run_time(),
        }
    }
}

fn readings(
    contenders: &mut [Contender],
    peer: Option<&Peer>,
) -> Result<Vec<(&'static str, Reading)>> {
    let mut readings = contenders
        .iter_mut()
        .map(|contender| Ok((contender.name, contender.info()?.into())))
        .collect::<Result<Vec<_>>>()?;
    if let Some(peer) = peer {
        readings.push(("bpftrace @[pid, args->reason] = count()", peer.reading()?));
    }
    Ok(readings)
}

/// bpftrace at work; it ends with this value.
struct Peer {
    process: Child,
    program: u32,
}

impl Peer {
    /// Starts it and waits for its program, which is the one that was not there before.
    fn start(path: &str) -> Result<Self> {
        const SCRIPT: &str =
            "tracepoint:kvm:kvm_userspace_exit { @[pid, args->reason] = count(); }";
        let before = ids()?;
        let mut process = Command::new(path)
            .args(["-e", SCRIPT])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {path}"))?;
        let start = Instant::now();
        loop {
            let new: Vec<u32> = ids()?.difference(&before).copied().collect();
            if let [program] = new[..] {
                // It is attached a moment after it was loaded.
                thread::sleep(Duration::from_millis(200));
                return Ok(Self { process, program });
            }
            if start.elapsed() > Duration::from_secs(20) || process.try_wait()?.is_some() {
                let _ = process.kill();
                bail!("{path} loaded {} programs, not one", new.len());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn reading(&self) -> Result<Reading> {
        loaded_programs()
            .filter_map(Result::ok)
            .find(|info| info.id() == self.program)
            .map(Into::into)
            .context("bpftrace's program is gone")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ids() -> Result<BTreeSet<u32>> {
    Ok(loaded_programs()
        .collect::<Result<Vec<_>, _>>()?
        .iter()
        .map(ProgramInfo::id)
        .collect())
}
