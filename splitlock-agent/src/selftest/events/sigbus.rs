//! Counts the SIGBUS that this process gets, by `si_code`, and survives them.
//!
//! The registers are those of x86-64 Linux: see "struct ucontext" and the uapi `siginfo.h`.

use std::arch::naked_asm;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::{io, mem, ptr};

use anyhow::{Result, ensure};

use super::Results;

/// EFLAGS.AC, bit 18 (Intel SDM volume 1, 3.4.3.3): with CR0.AM, a misaligned access at CPL 3 is an
/// alignment check.
pub const EFLAGS_AC: i32 = 1 << 18;

/// How the interrupted code goes on after the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOn {
    /// Where it was interrupted, with its registers as they were: the signal was sent.
    Unchanged,
    /// At the address in R10, with EFLAGS.AC clear: the signal was an instruction's fault, and
    /// the code has put there what comes after that instruction.
    AtR10,
}

/// Installs the handler for the whole process, with counts from 0.
pub fn install(go_on: GoOn) -> Result<()> {
    AT_R10.store(go_on == GoOn::AtR10, Relaxed);
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = enter;
    // SAFETY: sigaction is a C struct of integers, a mask and an optional function: all zeros are
    // its value for "no flags, nothing blocked".
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    set(&action)
}

/// Lets SIGBUS kill this process. Rust's runtime has a handler of its own, which looks for stack
/// overflows and has the instruction run twice.
pub fn restore_default() -> Result<()> {
    // SAFETY: as in `install`; with SIG_DFL, which is 0, no function is named.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = libc::SIG_DFL;
    set(&action)
}

/// What the handler has counted, by the name of the `si_code`, lower case. Unknown codes are `other`.
/// `eflags_ac` of them, whatever their code, found EFLAGS.AC set in the saved registers.
pub fn seen() -> Results {
    let mut results = Results::default();
    for (count, (name, _)) in SEEN.iter().zip(CODES) {
        results.add(name, count.load(Relaxed));
    }
    results.add("other", OTHER.load(Relaxed));
    results.add("eflags_ac", WITH_AC.load(Relaxed));
    results
}

/// The codes of include/uapi/asm-generic/siginfo.h that the events here can have.
const CODES: [(&str, i32); 5] = [
    ("bus_adraln", libc::BUS_ADRALN),
    ("bus_adrerr", libc::BUS_ADRERR),
    ("si_user", libc::SI_USER),
    ("si_queue", libc::SI_QUEUE),
    ("si_tkill", libc::SI_TKILL),
];

static SEEN: [AtomicU64; CODES.len()] = [const { AtomicU64::new(0) }; CODES.len()];
static OTHER: AtomicU64 = AtomicU64::new(0);
static WITH_AC: AtomicU64 = AtomicU64::new(0);
static AT_R10: AtomicBool = AtomicBool::new(false);

fn set(action: &libc::sigaction) -> Result<()> {
    // SAFETY: both pointers are valid or null as sigaction(2) wants it, and the handler is one of
    // `install`'s, async-signal-safe, or the default.
    let status = unsafe { libc::sigaction(libc::SIGBUS, action, ptr::null_mut()) };
    ensure!(
        status == 0,
        "sigaction(SIGBUS): {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// The kernel enters the handler with the interrupted code's EFLAGS.AC: of the flags it clears only
/// DF, RF and TF (v6.18 arch/x86/kernel/signal.c, handle_signal). Compiled code may be misaligned,
/// so clear AC before any of it runs.
#[unsafe(naked)]
extern "C" fn enter(_signal: i32, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    naked_asm!(
        "pushfq",
        "and qword ptr [rsp], {mask}",
        "popfq",
        "jmp {count}",
        mask = const !EFLAGS_AC,
        count = sym count,
    )
}

/// Async-signal-safe: lock-free atomics and the two structures that the kernel handed over.
extern "C" fn count(_signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a siginfo_t that lives as long as the handler runs.
    let code = unsafe { (*info).si_code };
    match CODES.iter().position(|(_, known)| *known == code) {
        Some(index) => &SEEN[index],
        None => &OTHER,
    }
    .fetch_add(1, Relaxed);

    // SAFETY: with SA_SIGINFO the third argument is the ucontext_t on this thread's signal frame, and
    // nothing else refers to it.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    if registers[libc::REG_EFL as usize] & i64::from(EFLAGS_AC) != 0 {
        WITH_AC.fetch_add(1, Relaxed);
    }
    if AT_R10.load(Relaxed) {
        registers[libc::REG_EFL as usize] &= !i64::from(EFLAGS_AC);
        registers[libc::REG_RIP as usize] = registers[libc::REG_R10 as usize];
    }
}
