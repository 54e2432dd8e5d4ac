//! Makers of real kernel events, each in a process of its own.
//!
//! The test binary starts itself again as `real_events event [--comm COMM] [--parent PID]
//! [--exit-at-once] NAME [ARG…]`; [`main`] is that child's side and [`Child`] the test's.
//! `NAME` and its arguments are those of [`Event::words`], and typing them by hand works too.
//!
//! | child writes | child waits for | then |
//! |---|---|---|
//! | `ready PID` | the line `go` | makes its events |
//! | `done KEY=VALUE…` | the end of its input, or a line | exits, or takes the line for its comm |
//! | `renamed here` | the same | the same |
//!
//! With `--exit-at-once` it writes the same lines and waits for neither. Started as `real_events
//! become --parent PID PROGRAM [ARG…]` it becomes that program instead of making events.

pub mod alignment_check;
mod child;
pub mod crowd;
pub mod forged_signal;
pub mod guise;
pub mod kvm_guest;
pub mod new_comm;
pub mod real_bus_error;
pub mod steady;
pub mod trap_module;

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{self, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use child::Child;
pub use splitlock_agent::selftest::events::Results;

/// The variable with a child's command line, one word a line, if its own is another's.
pub const ORDERS: &str = "SPLITLOCK_EVENT";

/// Longest comm that the kernel keeps, in bytes: `TASK_COMM_LEN` without its NUL.
const COMM_MAX: usize = 15;

/// What a child makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `count` real alignment checks, over `threads` threads: [`alignment_check::make`].
    AlignmentCheck { count: u64, threads: u32 },
    /// One real alignment check that kills the child: [`alignment_check::die`].
    AlignmentCheckFatal,
    /// `count` processes that end soon: [`crowd::make`].
    Crowd {
        each: crowd::Each,
        /// The first one's number.
        first: u32,
        count: u32,
    },
    /// `count` processes that raise one alignment check each and live as long as the child:
    /// [`crowd::keep`].
    Gathering { count: u32 },
    /// `count` SIGBUS that the child sends to itself: [`forged_signal::make`].
    ForgedSignal {
        forgery: forged_signal::Forgery,
        /// Whether EFLAGS.AC is set in the registers that the system call saves.
        eflags_ac: bool,
        count: u64,
    },
    /// `count` real SIGBUS for pages past the end of a file: [`real_bus_error::make`].
    RealBusError { count: u64 },
    /// A KVM guest: [`kvm_guest::make`].
    KvmGuest {
        guest: kvm_guest::Guest,
        count: u64,
        vcpus: u32,
    },
    /// Two KVM guests of one process: [`kvm_guest::make_two`].
    TwoKvmGuests {
        guest: kvm_guest::Guest,
        counts: [u64; 2],
    },
    /// Something at a steady rate until the child is killed: [`steady::make`].
    Steady {
        steady: steady::Steady,
        per_second: u32,
    },
    /// `count` traps by the kernel's own handlers, over `threads` threads: [`trap_module::make`].
    TrapModule {
        trap: trap_module::Trap,
        /// The instruction pointer that the handlers see.
        ip: u64,
        count: u64,
        threads: u32,
        /// Whether each thread gets a signal every millisecond.
        disturbed: bool,
    },
    /// `count` split locks of a process whose address space is locked: [`trap_module::make_held`].
    HeldAddressSpace { count: u64, milliseconds: u64 },
    /// One such trap, which kills the child: [`trap_module::die`].
    TrapModuleFatal { trap: trap_module::Trap, ip: u64 },
}

impl Event {
    /// The event as words of the command line.
    pub fn words(&self) -> Vec<String> {
        match *self {
            Self::AlignmentCheck { count, threads } => vec![
                "alignment-check".into(),
                count.to_string(),
                threads.to_string(),
            ],
            Self::AlignmentCheckFatal => vec!["alignment-check-fatal".into()],
            Self::Crowd { each, first, count } => vec![
                "crowd".into(),
                each.name().into(),
                first.to_string(),
                count.to_string(),
            ],
            Self::Gathering { count } => vec!["gathering".into(), count.to_string()],
            Self::ForgedSignal {
                forgery,
                eflags_ac,
                count,
            } => vec![
                "forged-signal".into(),
                forgery.name().into(),
                if eflags_ac { "ac" } else { "no-ac" }.into(),
                count.to_string(),
            ],
            Self::RealBusError { count } => vec!["real-bus-error".into(), count.to_string()],
            Self::KvmGuest {
                guest,
                count,
                vcpus,
            } => vec![
                "kvm-guest".into(),
                guest.name().into(),
                count.to_string(),
                vcpus.to_string(),
            ],
            Self::TwoKvmGuests {
                guest,
                counts: [first, second],
            } => vec![
                "two-kvm-guests".into(),
                guest.name().into(),
                first.to_string(),
                second.to_string(),
            ],
            Self::Steady { steady, per_second } => vec![
                "steady".into(),
                steady.name().into(),
                per_second.to_string(),
            ],
            Self::TrapModule {
                trap,
                ip,
                count,
                threads,
                disturbed,
            } => vec![
                "trap-module".into(),
                trap.name().into(),
                ip.to_string(),
                count.to_string(),
                threads.to_string(),
                if disturbed { "signals" } else { "quiet" }.into(),
            ],
            Self::HeldAddressSpace {
                count,
                milliseconds,
            } => vec![
                "held-address-space".into(),
                count.to_string(),
                milliseconds.to_string(),
            ],
            Self::TrapModuleFatal { trap, ip } => vec![
                "trap-module-fatal".into(),
                trap.name().into(),
                ip.to_string(),
            ],
        }
    }

    /// The inverse of [`Event::words`].
    fn parse(words: &[String]) -> Result<Self> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(match words[..] {
            ["alignment-check", count, threads] => Self::AlignmentCheck {
                count: number(count)?,
                threads: number(threads)?,
            },
            ["alignment-check-fatal"] => Self::AlignmentCheckFatal,
            ["crowd", each, first, count] => Self::Crowd {
                each: each.parse()?,
                first: number(first)?,
                count: number(count)?,
            },
            ["gathering", count] => Self::Gathering {
                count: number(count)?,
            },
            ["forged-signal", forgery, ac @ ("ac" | "no-ac"), count] => Self::ForgedSignal {
                forgery: forgery.parse()?,
                eflags_ac: ac == "ac",
                count: number(count)?,
            },
            ["real-bus-error", count] => Self::RealBusError {
                count: number(count)?,
            },
            ["kvm-guest", guest, count, vcpus] => Self::KvmGuest {
                guest: guest.parse()?,
                count: number(count)?,
                vcpus: number(vcpus)?,
            },
            ["two-kvm-guests", guest, first, second] => Self::TwoKvmGuests {
                guest: guest.parse()?,
                counts: [number(first)?, number(second)?],
            },
            ["steady", steady, per_second] => Self::Steady {
                steady: steady.parse()?,
                per_second: number(per_second)?,
            },
            [
                "trap-module",
                trap,
                ip,
                count,
                threads,
                signals @ ("signals" | "quiet"),
            ] => Self::TrapModule {
                trap: trap.parse()?,
                ip: number(ip)?,
                count: number(count)?,
                threads: number(threads)?,
                disturbed: signals == "signals",
            },
            ["held-address-space", count, milliseconds] => Self::HeldAddressSpace {
                count: number(count)?,
                milliseconds: number(milliseconds)?,
            },
            ["trap-module-fatal", trap, ip] => Self::TrapModuleFatal {
                trap: trap.parse()?,
                ip: number(ip)?,
            },
            _ => bail!(
                "no such event: {words:?}; known: alignment-check COUNT THREADS, \
                 alignment-check-fatal, crowd EACH FIRST COUNT, gathering COUNT, forged-signal CALL ac|no-ac COUNT, real-bus-error COUNT, \
                 kvm-guest GUEST COUNT VCPUS, two-kvm-guests GUEST COUNT COUNT, \
                 steady WHAT PER_SECOND, held-address-space COUNT MILLISECONDS, \
                 trap-module-fatal TRAP IP, trap-module TRAP IP COUNT THREADS signals|quiet"
            ),
        })
    }

    fn make(self) -> Result<Results> {
        match self {
            Self::AlignmentCheck { count, threads } => alignment_check::make(count, threads),
            Self::AlignmentCheckFatal => alignment_check::die(),
            Self::Crowd { each, first, count } => crowd::make(each, first, count),
            Self::Gathering { count } => crowd::keep(count),
            Self::ForgedSignal {
                forgery,
                eflags_ac,
                count,
            } => forged_signal::make(forgery, eflags_ac, count),
            Self::RealBusError { count } => real_bus_error::make(count),
            Self::KvmGuest {
                guest,
                count,
                vcpus,
            } => kvm_guest::make(guest, count, vcpus),
            Self::TwoKvmGuests { guest, counts } => kvm_guest::make_two(guest, counts),
            Self::Steady { steady, per_second } => match steady::make(steady, per_second)? {},
            Self::TrapModule {
                trap,
                ip,
                count,
                threads,
                disturbed,
            } => trap_module::make(trap, ip, count, threads, disturbed),
            Self::HeldAddressSpace {
                count,
                milliseconds,
            } => trap_module::make_held(count, Duration::from_millis(milliseconds)),
            Self::TrapModuleFatal { trap, ip } => trap_module::die(trap, ip),
        }
    }
}

/// The child's side: takes the words after `event`, follows the protocol of this module, and
/// fails with a message on standard error.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    match Order::parse(args).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("real_events event (pid {}): {error:#}", process::id());
            ExitCode::FAILURE
        }
    }
}

/// The side of a child that becomes another program: takes `--parent PID PROGRAM [ARG…]`, and returns
/// only if that fails.
pub fn become_program(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut prepare = || -> Result<Command> {
        let mut next = || {
            args.next()
                .context("too few arguments: --parent PID PROGRAM")
        };
        ensure!(next()? == "--parent", "--parent comes first");
        let parent = next()?;
        die_with(number(&parent.to_string_lossy())?)?;
        let mut command = Command::new(next()?);
        command.args(&mut args).stdin(Stdio::null());
        ensure!(wait_for_go()?, "called off");
        Ok(command)
    };
    let error = match prepare() {
        Ok(mut command) => anyhow::Error::new(command.exec()).context(format!("{command:?}")),
        Err(error) => error,
    };
    eprintln!("real_events become (pid {}): {error:#}", process::id());
    ExitCode::FAILURE
}

/// The child's command line.
struct Order {
    comm: Option<CString>,
    parent: Option<u32>,
    exit_at_once: bool,
    event: Event,
}

impl Order {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let (mut comm, mut parent, mut exit_at_once) = (None, None, false);
        let mut words = Vec::new();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--comm" => {
                    let name = args.next().context("--comm wants a name")?;
                    ensure!(
                        name.len() <= COMM_MAX,
                        "--comm {name}: the kernel keeps {COMM_MAX} bytes"
                    );
                    comm = Some(CString::new(name).context("--comm")?);
                }
                "--parent" => parent = Some(number(&args.next().context("--parent wants a pid")?)?),
                "--exit-at-once" => exit_at_once = true,
                _ => words.push(arg),
            }
        }
        let event = Event::parse(&words)?;
        Ok(Self {
            comm,
            parent,
            exit_at_once,
            event,
        })
    }
}

fn serve(order: Order) -> Result<()> {
    let Order {
        comm,
        parent,
        exit_at_once,
        event,
    } = order;
    if let Some(parent) = parent {
        die_with(parent)?;
    }
    if let Some(comm) = comm {
        set_comm(&comm)?;
    }

    if exit_at_once {
        say_ready()?;
    } else if !wait_for_go()? {
        return Ok(()); // Called off.
    }
    let results = event.make().with_context(|| event.words().join(" "))?;
    say(&format!("done {results}"))?;
    if !exit_at_once {
        // The protocol's end, or names to take before.
        for line in io::stdin().lines() {
            let line = line.context("waiting for the end of input")?;
            set_comm(&CString::new(line).context("a new comm")?)?;
            say("renamed here")?;
        }
    }
    Ok(())
}

/// Names this thread, which is the group's leader.
fn set_comm(comm: &CString) -> Result<()> {
    // SAFETY: PR_SET_NAME reads at most 16 bytes, up to the NUL that a CString has.
    let status = unsafe { libc::prctl(libc::PR_SET_NAME, comm.as_ptr()) };
    ensure!(
        status == 0,
        "PR_SET_NAME {comm:?}: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

fn say_ready() -> Result<()> {
    say(&format!("ready {}", process::id()))
}

/// Whether it came; if not, the test wants no events.
fn wait_for_go() -> Result<bool> {
    say_ready()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("waiting for go")?;
    ensure!(
        line.is_empty() || line.trim_end() == "go",
        "expected go, found {line:?}"
    );
    Ok(!line.is_empty())
}

/// Ends this process when the thread that started it ends.
fn die_with(parent: u32) -> Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a number and touches no memory.
    let status = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    ensure!(
        status == 0,
        "PR_SET_PDEATHSIG: {}",
        io::Error::last_os_error()
    );
    // A parent that died before the call above sends nothing any more.
    ensure!(
        parent_id() == parent,
        "the parent {parent} ended before its child was ready"
    );
    Ok(())
}

/// Writes one line. Not `println!`, which panics when the test has gone.
fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").with_context(|| format!("writing {line:?}"))
}

fn number<T>(text: &str) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .with_context(|| format!("{text:?} is not a number"))
}

/// The part of `count` that the worker `index` of `workers` makes; the parts add up to `count`.
fn share(count: u64, index: u32, workers: u32) -> u64 {
    let (index, workers) = (u64::from(index), u64::from(workers));
    count / workers + u64::from(index < count % workers)
}
