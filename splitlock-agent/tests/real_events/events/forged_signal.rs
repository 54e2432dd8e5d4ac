//! SIGBUS that a process sends to itself, down to a perfect copy of the kernel's own: no #AC at all.

use std::arch::asm;
use std::str::FromStr;
use std::{io, mem, process};

use anyhow::{Error, Result, bail, ensure};
use splitlock_agent::selftest::events::sigbus::{self, EFLAGS_AC, GoOn};

use super::Results;

/// How the signal is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// `rt_sigqueueinfo` with BUS_ADRALN: the code that an #AC has. The kernel takes a code of 0 or
    /// above only from a thread that sends it to itself (v6.18 kernel/signal.c,
    /// do_rt_sigqueueinfo).
    RtSigqueueinfo,
    /// `rt_tgsigqueueinfo` with BUS_ADRALN, under the same condition.
    RtTgsigqueueinfo,
    /// What sigqueue(3) does: `rt_sigqueueinfo` with SI_QUEUE.
    Sigqueue,
    /// `kill`: SI_USER.
    Kill,
    /// `tgkill`: SI_TKILL.
    Tgkill,
}

impl Forgery {
    /// All ways.
    pub const ALL: [Self; 5] = [
        Self::RtSigqueueinfo,
        Self::RtTgsigqueueinfo,
        Self::Sigqueue,
        Self::Kill,
        Self::Tgkill,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RtSigqueueinfo => "rt_sigqueueinfo",
            Self::RtTgsigqueueinfo => "rt_tgsigqueueinfo",
            Self::Sigqueue => "sigqueue",
            Self::Kill => "kill",
            Self::Tgkill => "tgkill",
        }
    }

    /// The result under which the receiver counts it: the `si_code`'s name.
    pub fn result(self) -> &'static str {
        match self {
            Self::RtSigqueueinfo | Self::RtTgsigqueueinfo => "bus_adraln",
            Self::Sigqueue => "si_queue",
            Self::Kill => "si_user",
            Self::Tgkill => "si_tkill",
        }
    }
}

impl FromStr for Forgery {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|known| known.name() == name) {
            Some(forgery) => Ok(forgery),
            None => bail!(
                "no such forgery: {name}; known: {:?}",
                Self::ALL.map(Self::name)
            ),
        }
    }
}

/// Sends `count` SIGBUS from the main thread to its own process, and counts what arrives, under
/// [`Forgery::result`].
///
/// With `eflags_ac` EFLAGS.AC is set at the `syscall` instruction, and so in the registers that the
/// kernel saves on entry (`pt_regs`), as after an alignment check: the result of that name says how
/// often it was.
pub fn make(forgery: Forgery, eflags_ac: bool, count: u64) -> Result<Results> {
    sigbus::install(GoOn::Unchanged)?;
    // The main thread's tid is the pid.
    let pid = u64::from(process::id());
    let signal = libc::SIGBUS as u64;
    let code = match forgery {
        Forgery::Sigqueue => libc::SI_QUEUE,
        _ => libc::BUS_ADRALN,
    };
    let info = siginfo(code);
    let info = &raw const info as u64;
    let (call, arguments) = match forgery {
        Forgery::RtSigqueueinfo | Forgery::Sigqueue => {
            (libc::SYS_rt_sigqueueinfo, [pid, signal, info, 0])
        }
        Forgery::RtTgsigqueueinfo => (libc::SYS_rt_tgsigqueueinfo, [pid, pid, signal, info]),
        Forgery::Kill => (libc::SYS_kill, [pid, signal, 0, 0]),
        Forgery::Tgkill => (libc::SYS_tgkill, [pid, pid, signal, 0]),
    };
    for _ in 0..count {
        // A pending SIGBUS would swallow a second one; this one is delivered before the call
        // returns, as the main thread is the only one and does not block it.
        // SAFETY: the calls read at most one siginfo_t, at `info`, which lives until the end of
        // this function; the signal meets `sigbus`'s handler.
        let status = unsafe { system_call(call, arguments, eflags_ac) };
        ensure!(
            status == 0,
            "{}: {}",
            forgery.name(),
            io::Error::from_raw_os_error(-status as i32)
        );
    }
    Ok(sigbus::seen())
}

fn siginfo(code: i32) -> libc::siginfo_t {
    // SAFETY: siginfo_t is a C struct of integers and pointers, for which zeros are values.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    info.si_signo = libc::SIGBUS;
    info.si_code = code;
    info
}

/// A system call, with EFLAGS.AC set at its entry if `eflags_ac`; gives 0 or above, or -errno.
///
/// # Safety
///
/// The call and its arguments have to be sound in themselves.
unsafe fn system_call(number: i64, arguments: [u64; 4], eflags_ac: bool) -> i64 {
    let set: u64 = if eflags_ac { EFLAGS_AC as u64 } else { 0 };
    let status: i64;
    // SAFETY: the caller answers for the call. The pushes are balanced, without `nostack` there is no
    // red zone, and EFLAGS.AC is clear again before compiled code runs; a signal handler that
    // interrupts the window clears it for itself. `syscall` changes RAX, RCX and R11.
    unsafe {
        asm!(
            "pushfq",
            "or qword ptr [rsp], {set}",
            "popfq",
            "syscall",
            "pushfq",
            "and qword ptr [rsp], {clear}",
            "popfq",
            set = in(reg) set,
            clear = const !EFLAGS_AC,
            inlateout("rax") number => status,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    status
}
