//! Split and bus locks without a CPU that detects them: the rig's module calls the kernel's own
//! handlers for the task that asks (`xtask/rig/trap-module/splitlock_trap.c`, which has the other
//! side of this interface).
//!
//! What a call does is that kernel's doing and goes by the [`Mode`], which is the whole machine's.

mod device;
mod mode;

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use std::{io, mem, process, ptr, thread};

use anyhow::{Context, Error, Result, bail, ensure};
use splitlock_agent::selftest::events::sigbus::{self, EFLAGS_AC, GoOn};

use super::{Results, share};
use device::{Call, Device, Handler};

pub use mode::{Mode, ModeGuard, mode, ratelimit_available, set_mode};

/// Whether the module is there; if not, what to do about it.
pub fn available() -> Result<(), String> {
    match Device::open() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "{error:#}: only the VMs of cargo xtask vm have the trap module"
        )),
    }
}

/// Whether this kernel has `handle_bus_lock`.
pub fn bus_lock_available() -> Result<(), String> {
    let device = Device::open().map_err(|error| format!("{error:#}"))?;
    match device.call(Handler::Bus, Call::default()) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("no bus locks before Linux 5.13: {error}")),
    }
}

/// What is trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A split lock of the process's own code: `handle_user_split_lock`, EFLAGS.AC clear.
    UserSplitLock,
    /// The same function with EFLAGS.AC set, which is how an alignment check looks.
    AlignmentCheck,
    /// A split lock of a guest, as if the device were a vCPU: `handle_guest_split_lock`.
    GuestSplitLock,
    /// A bus lock of the process's own code: `handle_bus_lock`.
    BusLock,
}

impl Trap {
    /// All traps.
    pub const ALL: [Self; 4] = [
        Self::UserSplitLock,
        Self::AlignmentCheck,
        Self::GuestSplitLock,
        Self::BusLock,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserSplitLock => "user-split-lock",
            Self::AlignmentCheck => "alignment-check",
            Self::GuestSplitLock => "guest-split-lock",
            Self::BusLock => "bus-lock",
        }
    }
}

impl FromStr for Trap {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|known| known.name() == name) {
            Some(trap) => Ok(trap),
            None => bail!(
                "no such trap: {name}; known: {:?}",
                Self::ALL.map(Self::name)
            ),
        }
    }
}

/// Makes `count` traps at the instruction pointer `ip`, over `threads` threads, and survives each.
/// EFLAGS.AC and `ip` are in the registers that the kernel sees, and were never the process's own.
///
/// | result | |
/// |---|---|
/// | `made` | calls of the kernel's handler: `count` |
/// | `returned_true`, `returned_false` | what they returned; 0 for bus locks, which return nothing |
/// | `nanoseconds` | inside these calls, of all threads together |
/// | `signals` | SIGUSR1 that arrived |
/// | `bus_adraln` … | SIGBUS, as in [`sigbus::seen`] |
///
/// If `disturbed`, each thread gets SIGUSR1 every millisecond meanwhile, from a thread of its own.
///
/// With more than one thread, all of them begin together and end before this returns; their comm
/// is `worker-N` while the process keeps its own. One thread means the main thread.
pub fn make(trap: Trap, ip: u64, count: u64, threads: u32, disturbed: bool) -> Result<Results> {
    ensure!(threads > 0, "at least one thread has to do it");
    sigbus::install(GoOn::Unchanged)?;
    count_signals()?;
    let device = Device::open()?;
    let work = move |device: &Device, count| {
        if disturbed {
            disturb_while(|| make_here(device, trap, ip, count))
        } else {
            make_here(device, trap, ip, count)
        }
    };
    let mut results = Results::default();
    if threads == 1 {
        results = work(&device, count)?;
    } else {
        let device = Arc::new(device);
        let together = Arc::new(Barrier::new(threads as usize));
        let workers = (0..threads)
            .map(|index| {
                let (device, together) = (Arc::clone(&device), Arc::clone(&together));
                let name = format!("worker-{index}");
                thread::Builder::new().name(name).spawn(move || {
                    together.wait();
                    work(&device, share(count, index, threads))
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .context("starting the worker threads")?;
        for worker in workers {
            match worker.join() {
                Ok(made) => results.merge(&made?),
                Err(_) => bail!("a worker thread panicked"),
            }
        }
    }
    results.add("signals", SIGNALS.load(Relaxed));
    results.merge(&sigbus::seen());
    Ok(results)
}

/// Makes one trap, of which the process dies with SIGBUS and without a core file. Returns only if
/// that failed: not every trap is fatal in every [`Mode`].
pub fn die(trap: Trap, ip: u64) -> Result<Results> {
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
    let device = Device::open()?;
    sigbus::restore_default()?;
    let made = make_here(&device, trap, ip, 1)?;
    bail!(
        "survived a {} in the mode {:?}: {made}",
        trap.name(),
        mode()?
    )
}

/// Makes `count` split locks, and holds the lock of its address space from before the first of them for
/// so long that nobody can read its command line meanwhile.
pub fn make_held(count: u64, hold: Duration) -> Result<Results> {
    const IP: u64 = 0x40_1000;
    /// The other thread is inside by then.
    const LEAD: Duration = Duration::from_millis(500);
    sigbus::install(GoOn::Unchanged)?;
    // A page fault would wait for the lock too (before 6.4 each one), and there
    // would be no trap while it is held.
    // SAFETY: a flag, and no memory of ours.
    let status = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
    ensure!(status == 0, "mlockall: {}", io::Error::last_os_error());
    let device = Arc::new(Device::open()?);
    let holder = Arc::clone(&device);
    let holding = thread::spawn(move || holder.hold_address_space(hold));
    thread::sleep(LEAD);
    let results = make_here(&device, Trap::UserSplitLock, IP, count)?;
    match holding.join() {
        Ok(held) => held.context("holding the address space")?,
        Err(_) => bail!("the holding thread panicked"),
    }
    Ok(results)
}

/// The means to make one trap after the other, in the thread that asks.
pub struct One {
    device: Device,
    trap: Trap,
}

impl One {
    /// Opens the device.
    pub fn open(trap: Trap) -> Result<Self> {
        let device = Device::open()?;
        Ok(Self { device, trap })
    }

    /// Makes one, at an instruction pointer that means nothing.
    pub fn make(&self) -> Result<()> {
        const IP: u64 = 0x40_1000;
        make_here(&self.device, self.trap, IP, 1).map(drop)
    }
}

/// Makes `count` traps in this thread.
fn make_here(device: &Device, trap: Trap, ip: u64, count: u64) -> Result<Results> {
    let mut results = Results::default();
    for name in ["made", "returned_true", "returned_false", "nanoseconds"] {
        results.add(name, 0);
    }
    let (handler, flags) = match trap {
        Trap::UserSplitLock => (Handler::User, 0),
        Trap::AlignmentCheck => (Handler::User, EFLAGS_AC as u64),
        Trap::GuestSplitLock => (Handler::Guest, 0),
        Trap::BusLock => (Handler::Bus, 0),
    };
    let mut left = count;
    while left > 0 {
        // The module stops at a signal, so that no second SIGBUS merges with a pending one.
        let order = Call {
            ip,
            flags,
            repeat: left,
            ..Call::default()
        };
        let call = device.call(handler, order).with_context(|| trap.name())?;
        ensure!(
            (1..=left).contains(&call.made),
            "asked for {left} traps, the module made {}",
            call.made
        );
        left -= call.made;
        results.add("made", call.made);
        results.add("nanoseconds", call.nanoseconds);
        if trap != Trap::BusLock {
            results.add("returned_true", call.returned_true);
            results.add("returned_false", call.made - call.returned_true);
        }
    }
    Ok(results)
}

/// Runs `work` while another thread sends SIGUSR1 to this one every millisecond.
fn disturb_while<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the call has no preconditions.
    let tid = unsafe { libc::gettid() };
    thread::scope(|scope| {
        // Dropped when the work is done, also by a panic: that ends the other thread.
        let (_working, done) = channel::<()>();
        scope.spawn(move || {
            while done.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
                // SAFETY: tgkill takes numbers; the thread waits for this one, so the tid is its
                // own, and SIGUSR1 has `count_signals`'s handler.
                unsafe { libc::syscall(libc::SYS_tgkill, process::id(), tid, libc::SIGUSR1) };
            }
        });
        work()
    })
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

/// Has SIGUSR1 counted, and system calls not restarted after it.
fn count_signals() -> Result<()> {
    extern "C" fn count(_signal: i32) {
        SIGNALS.fetch_add(1, Relaxed);
    }
    let handler: extern "C" fn(i32) = count;
    // SAFETY: sigaction is a C struct of integers, a mask and an optional function: all zeros are
    // its value for "no flags, nothing blocked".
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // SAFETY: both pointers are valid or null as sigaction(2) wants it; the handler is
    // async-signal-safe, as it does one lock-free addition.
    let status = unsafe { libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()) };
    ensure!(
        status == 0,
        "sigaction(SIGUSR1): {}",
        io::Error::last_os_error()
    );
    Ok(())
}
