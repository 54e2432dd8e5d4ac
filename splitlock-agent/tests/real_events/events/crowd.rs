//! Many processes that end soon: each traps once and dies of it, or runs a guest once. Each has a
//! name of its own: that of the process which makes them all, and its number.

use std::ffi::CString;
use std::fs;
use std::io;
use std::process;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

use super::{
    Results, alignment_check,
    kvm_guest::{self, Guest},
    trap_module,
};

/// How many live at a time. On a host they come and go as services do that crash.
const AT_A_TIME: usize = 8;

/// What each process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    /// A real alignment check.
    AlignmentCheck,
    /// A split lock in fatal mode, by the kernel's own handler.
    SplitLock,
    /// A VM whose guest writes to a port once; its VMM exits.
    Vm,
}

impl Each {
    const ALL: [Self; 3] = [Self::AlignmentCheck, Self::SplitLock, Self::Vm];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlignmentCheck => "alignment-check",
            Self::SplitLock => "split-lock",
            Self::Vm => "vm",
        }
    }

    /// Whether a process of the crowd ended as it should.
    fn ended_well(self, status: i32) -> bool {
        match self {
            Self::AlignmentCheck | Self::SplitLock => {
                libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGBUS
            }
            Self::Vm => libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        }
    }

    fn do_it(self) -> Result<Results> {
        match self {
            Self::AlignmentCheck => alignment_check::die(),
            Self::SplitLock => trap_module::die(trap_module::Trap::UserSplitLock, 0x40_1000),
            Self::Vm => kvm_guest::make(Guest::PortIo, 1, 1),
        }
    }
}

impl FromStr for Each {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|known| known.name() == name)
            .with_context(|| format!("no such crowd: {name}"))
    }
}

/// The comm of the process `index` in the crowd of a process with the comm `maker`.
pub fn comm(maker: &str, index: u32) -> String {
    format!("{maker}-{index}")
}

/// Makes `count` processes, children of this one, numbered from `first` on, and waits until all have
/// ended as they should.
pub fn make(each: Each, first: u32, count: u32) -> Result<Results> {
    let maker = fs::read_to_string("/proc/self/comm").context("reading the own comm")?;
    let mut results = Results::default();
    results.add("ended", 0);
    let mut living = 0;
    for index in first..first + count {
        if living == AT_A_TIME {
            reap(each)?;
            results.add("ended", 1);
            living -= 1;
        }
        // SAFETY: this process has one thread, so the child may do whatever its parent could.
        match unsafe { libc::fork() } {
            0 => be_one(each, &comm(maker.trim_end(), index)),
            -1 => bail!("fork: {}", io::Error::last_os_error()),
            _ => living += 1,
        }
    }
    for _ in 0..living {
        reap(each)?;
        results.add("ended", 1);
    }
    Ok(results)
}

/// Makes `count` processes that raise one alignment check each and live as long as this one.
pub fn keep(count: u32) -> Result<Results> {
    let parent = process::id();
    for index in 0..count {
        // SAFETY: as above.
        match unsafe { libc::fork() } {
            0 => {
                // A child that cannot do it ends, and is missed by who counts.
                let stays = super::die_with(parent).and_then(|()| {
                    set_name(&comm("kept", index));
                    alignment_check::make(1, 1)
                });
                while stays.is_ok() {
                    // SAFETY: the call has no preconditions.
                    unsafe { libc::pause() };
                }
                process::exit(1)
            }
            -1 => bail!("fork: {}", io::Error::last_os_error()),
            _ => {}
        }
    }
    Ok(Results::default())
}

fn set_name(name: &str) {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: PR_SET_NAME reads at most 16 bytes, up to the NUL that a CString has.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

fn be_one(each: Each, comm: &str) -> ! {
    set_name(comm);
    match each.do_it() {
        Ok(_results) => process::exit(0),
        Err(error) => {
            eprintln!("{comm}: {error:#}");
            process::exit(1)
        }
    }
}

fn reap(each: Each) -> Result<()> {
    let mut status = 0;
    // SAFETY: wait writes the status that it is given.
    let pid = unsafe { libc::wait(&raw mut status) };
    ensure!(pid > 0, "wait: {}", io::Error::last_os_error());
    ensure!(
        each.ended_well(status),
        "the process {pid} ended with status {status:#x}"
    );
    Ok(())
}
