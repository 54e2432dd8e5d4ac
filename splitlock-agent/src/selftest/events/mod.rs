//! Makers of real events. The project's tests make theirs of the same.
//!
//! `splitlock-agent selftest-event EVENT COUNT PARENT` is the child of `selftest`; [`serve`] is its
//! side of this protocol:
//!
//! | child writes | child waits for | then |
//! |---|---|---|
//! | `ready PID` | the line `go` | makes its events |
//! | `done KEY=VALUE…` | the end of its input | exits |

pub mod alignment_check;
pub mod kvm_guest;
mod results;
pub mod sigbus;
pub mod split_lock;

use std::{
    io::{self, Write as _},
    os::unix::process::parent_id,
    process, thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::results::Results;
use self::{kvm_guest::Vcpu, sigbus::GoOn};
use crate::cli::selftest::{EventName, EventOptions};

/// Between two split locks. After one the kernel leaves detection off on that core for two jiffies,
/// 20 ms at most (`__split_lock_reenable`, arch/x86/kernel/cpu/bus_lock.c, 5.19+).
pub const PAUSE: Duration = Duration::from_millis(100);

/// The child's side.
///
/// # Errors
/// What the kernel refused.
pub fn serve(options: &EventOptions) -> Result<()> {
    let EventOptions {
        event,
        count,
        parent,
    } = *options;
    die_with(parent)?;
    // SAFETY: PR_SET_NAME reads at most 16 bytes, up to the NUL that a CStr has.
    let status = unsafe { libc::prctl(libc::PR_SET_NAME, event.comm().as_ptr()) };
    ensure!(status == 0, "PR_SET_NAME: {}", io::Error::last_os_error());

    say(&format!("ready {}", process::id()))?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("waiting for go")?;
    if line.is_empty() {
        return Ok(()); // Called off.
    }
    let results = match event {
        EventName::AlignmentCheck => misaligned_loads(count)?,
        EventName::SplitLock => locked_adds(count)?,
        EventName::Guest => guest(count)?,
    };
    say(&format!("done {results}"))?;
    io::stdin()
        .read_line(&mut line)
        .context("waiting for the end of input")?;
    Ok(())
}

fn misaligned_loads(count: u32) -> Result<Results> {
    sigbus::install(GoOn::AtR10)?;
    (0..count).for_each(|_| alignment_check::misaligned_load());
    Ok(sigbus::seen())
}

fn locked_adds(count: u32) -> Result<Results> {
    sigbus::install(GoOn::AtR10)?;
    for number in 0..count {
        if number > 0 {
            thread::sleep(PAUSE);
        }
        split_lock::locked_add();
    }
    Ok(sigbus::seen())
}

/// Each run of the guest is one load: a shutdown if it trapped, else a write to a port.
fn guest(count: u32) -> Result<Results> {
    let (kvm, cpuid) = kvm_guest::open()?;
    let vm = kvm_guest::new_vm(&kvm, &kvm_guest::ALIGNMENT_CHECK)?;
    let mut vcpu = Vcpu::new(&vm, &cpuid, 0)?;
    for _ in 0..count {
        vcpu.enter_user_mode()?;
        let reason = vcpu.run_on()?;
        ensure!(
            ["shutdown", "io"].contains(&reason),
            "KVM_RUN returned {reason}, not shutdown or io"
        );
    }
    // The VM ends with the process, so that the agent finds it alive.
    std::mem::forget(vm);
    Ok(vcpu.returned().clone())
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
        "the process that started this one, {parent}, is gone"
    );
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .context("telling the parent")
}
