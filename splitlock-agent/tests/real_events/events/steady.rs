//! Events at a steady rate, for ever: what a host that somebody watches goes through.

use std::convert::Infallible;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};

use super::kvm_guest;
use super::trap_module::{One, Trap};

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steady {
    /// A guest that writes to a port, and is no worse than that.
    Guest,
    /// The same, and for each write one split lock of a guest, by its vCPU's thread.
    OffendingGuest,
    /// Split locks of the process's own code.
    OffendingProcess,
}

impl Steady {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Guest, Self::OffendingGuest, Self::OffendingProcess];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::OffendingGuest => "offending-guest",
            Self::OffendingProcess => "offending-process",
        }
    }
}

impl FromStr for Steady {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|known| known.name() == name) {
            Some(steady) => Ok(steady),
            None => bail!("{name}: known are {:?}", Self::ALL.map(Self::name)),
        }
    }
}

/// Goes on until the process is killed, or something fails.
///
/// That is `per_second` times a second, or as often as the kernel's delays let it. What they cost is
/// not made up for: a program does not hurry because it was held up.
pub fn make(steady: Steady, per_second: u32) -> Result<Infallible> {
    ensure!(per_second > 0, "a rate of 0 is nothing");
    let mut pace = Pace::new(per_second);
    let split_lock = match steady {
        Steady::Guest => None,
        Steady::OffendingGuest => Some(One::open(Trap::GuestSplitLock)?),
        Steady::OffendingProcess => Some(One::open(Trap::UserSplitLock)?),
    };
    let mut step = move || -> Result<()> {
        pace.wait();
        split_lock.as_ref().map_or(Ok(()), One::make)
    };
    if steady == Steady::OffendingProcess {
        loop {
            step()?;
        }
    }
    kvm_guest::make_steps(step).context("the guest")
}

/// Equal spans of time between one event and the next.
struct Pace {
    span: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self {
            span: Duration::from_secs(1) / per_second,
            next: Instant::now(),
        }
    }

    fn wait(&mut self) {
        let now = Instant::now();
        thread::sleep(self.next.saturating_duration_since(now));
        self.next = self.next.max(now) + self.span;
    }
}
