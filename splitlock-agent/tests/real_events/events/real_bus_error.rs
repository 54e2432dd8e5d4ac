//! Real SIGBUS by the kernel, but with BUS_ADRERR: loads from a mapping past the end of its file.

use std::arch::asm;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::{io, ptr};

use anyhow::{Context, Result, ensure};
use splitlock_agent::selftest::events::sigbus::{self, GoOn};

use super::Results;

/// One page.
const SIZE: usize = 4096;

/// Touches `count` times a page whose file was truncated, and survives; the result `bus_adrerr` is
/// what the handler counted.
pub fn make(count: u64) -> Result<Results> {
    sigbus::install(GoOn::AtR10)?;
    let page = truncated_page()?;
    for _ in 0..count {
        // SAFETY: the load reads one byte of a mapping that is never taken away, or faults there;
        // the handler then goes on at label 3, as R10 tells it.
        unsafe {
            asm!(
                "lea r10, [rip + 3f]",
                "mov {value}, byte ptr [{page}]",
                "3:",
                page = in(reg) page,
                value = out(reg_byte) _,
                out("r10") _,
                options(nostack),
            );
        }
    }
    Ok(sigbus::seen())
}

/// A page that stays mapped until the process ends and has no file behind it any more.
fn truncated_page() -> Result<*const u8> {
    // SAFETY: the name is a C string, and the call returns a new descriptor or -1.
    let descriptor = unsafe { libc::memfd_create(c"real-bus-error".as_ptr(), libc::MFD_CLOEXEC) };
    ensure!(
        descriptor >= 0,
        "memfd_create: {}",
        io::Error::last_os_error()
    );
    // SAFETY: the descriptor is new and belongs to nothing else.
    let file = unsafe { File::from_raw_fd(descriptor) };
    file.set_len(SIZE as u64)
        .context("giving the memfd a page")?;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            SIZE,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    ensure!(
        page != libc::MAP_FAILED,
        "mmap: {}",
        io::Error::last_os_error()
    );
    file.set_len(0).context("taking the page away again")?;
    Ok(page.cast())
}
