//! Real alignment checks: #AC by a misaligned load with EFLAGS.AC set, which is no split lock.

use std::arch::asm;
use std::sync::{Arc, Barrier};
use std::{io, thread};

use anyhow::{Context, Result, bail, ensure};

use super::sigbus::{self, EFLAGS_AC, GoOn};
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

/// A load of a u32 from an odd address, within one cache line.
fn misaligned_load() {
    #[repr(align(64))]
    struct CacheLine([u8; 64]);
    static LINE: CacheLine = CacheLine([0; 64]);

    // SAFETY: the load reads 4 bytes inside LINE. The pushes are balanced and the stack pointer is
    // as before at the end; without `nostack` there is no red zone that they could overwrite.
    // EFLAGS.AC is set only from one popfq to the other, where no compiled code runs. The signal
    // handler goes on at label 3, as R10 tells it, and changes no register but RIP and EFLAGS.
    unsafe {
        asm!(
            "lea r10, [rip + 3f]",
            "pushfq",
            "or qword ptr [rsp], {set}",
            "popfq",
            "mov {value:e}, dword ptr [{odd}]",
            "3:",
            "pushfq",
            "and qword ptr [rsp], {clear}",
            "popfq",
            set = const EFLAGS_AC,
            clear = const !EFLAGS_AC,
            odd = in(reg) &raw const LINE.0[1],
            value = out(reg) _,
            out("r10") _,
        );
    }
}
