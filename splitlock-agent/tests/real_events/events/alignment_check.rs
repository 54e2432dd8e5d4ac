//! Real alignment checks: #AC by a misaligned load with EFLAGS.AC set, which is no split lock.

use std::sync::{Arc, Barrier};
use std::{io, thread};

use anyhow::{Context, Result, bail, ensure};
use splitlock_agent::selftest::events::alignment_check::misaligned_load;
use splitlock_agent::selftest::events::sigbus::{self, GoOn};

use super::{Results, share};

/// Raises `count` alignment checks and survives each; the results `bus_adraln` and `eflags_ac` are
/// what the SIGBUS handler counted, and the others are to stay 0.
///
/// With more than one thread, all of them begin together and end before this returns; their comm
/// is `worker-N` while the process keeps its own. One thread means the main thread.
pub fn make(count: u64, threads: u32) -> Result<Results> {
    ensure!(threads > 0, "at least one thread has to do it");
    sigbus::install(GoOn::AtR10)?;
    if threads == 1 {
        (0..count).for_each(|_| misaligned_load());
        return Ok(sigbus::seen());
    }
    let together = Arc::new(Barrier::new(threads as usize));
    let workers = (0..threads)
        .map(|index| {
            let together = Arc::clone(&together);
            let name = format!("worker-{index}");
            thread::Builder::new().name(name).spawn(move || {
                together.wait();
                (0..share(count, index, threads)).for_each(|_| misaligned_load());
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .context("starting the worker threads")?;
    for worker in workers {
        if worker.join().is_err() {
            bail!("a worker thread panicked");
        }
    }
    Ok(sigbus::seen())
}

/// Raises one alignment check, of which the process dies with SIGBUS and without a core file.
/// Returns only if that failed.
pub fn die() -> Result<Results> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: setrlimit reads the struct that it is given.
    let status = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    ensure!(
        status == 0,
        "setrlimit(RLIMIT_CORE): {}",
        io::Error::last_os_error()
    );
    sigbus::restore_default()?;
    misaligned_load();
    bail!("survived a misaligned load with EFLAGS.AC set: is CR0.AM clear?")
}
