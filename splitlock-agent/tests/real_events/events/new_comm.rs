//! A new comm for a process that runs another program.
//!
//! `/proc/PID/comm` takes one only from the process itself (`comm_write`, fs/proc/base.c), so it is
//! made to do the system call, as a debugger would.

use std::{ffi::c_void, io, mem, ptr, thread, time::Duration};

/// How often its leader is stopped until it is found in a system call, where an idle VMM's nearly
/// always is.
const ATTEMPTS: usize = 1000;
/// `syscall`, behind which a task in a system call is.
const SYSCALL: libc::c_long = 0x050f;
/// Below the stack's top, past what a function may use there (the psABI's red zone).
const BELOW_THE_STACK: u64 = 512;

/// Gives the leader of a child's threads a comm of at most 15 bytes.
///
/// # Errors
/// The process is no child of this thread's process, is traced already, or never waits.
pub fn set(pid: u32, comm: &str) -> io::Result<()> {
    let pid = pid.cast_signed();
    for _ in 0..ATTEMPTS {
        let stopped = Stopped::attach(pid)?;
        if stopped.is_in_system_call()? {
            return stopped.prctl_set_name(comm);
        }
        drop(stopped);
        thread::sleep(Duration::from_millis(5));
    }
    Err(io::Error::other("it never waits"))
}

/// A thread that a tracer has stopped. It goes on when this value is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn attach(pid: libc::pid_t) -> io::Result<Self> {
        ptrace(libc::PTRACE_ATTACH, pid, ptr::null_mut(), ptr::null_mut())?;
        let stopped = Self(pid);
        stopped.wait()?;
        Ok(stopped)
    }

    fn wait(&self) -> io::Result<()> {
        let mut status = 0;
        // SAFETY: the status is written to a local.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        if pid == self.0 && libc::WIFSTOPPED(status) {
            Ok(())
        } else {
            Err(io::Error::other("it did not stop"))
        }
    }

    fn is_in_system_call(&self) -> io::Result<bool> {
        let registers = self.registers()?;
        // -1 where it came into the kernel in another way.
        if registers.orig_rax.cast_signed() < 0 {
            return Ok(false);
        }
        let code = (registers.rip - 2) as *mut c_void;
        let word = ptrace(libc::PTRACE_PEEKTEXT, self.0, code, ptr::null_mut())?;
        Ok(word & 0xffff == SYSCALL)
    }

    fn prctl_set_name(&self, comm: &str) -> io::Result<()> {
        let before = self.registers()?;
        let address = (before.rsp - BELOW_THE_STACK) & !7;
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm.as_bytes());
        for (at, word) in (address..).step_by(8).zip(name.chunks_exact(8)) {
            let word = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
            let (at, word) = (at as *mut c_void, word as *mut c_void);
            ptrace(libc::PTRACE_POKEDATA, self.0, at, word)?;
        }
        let call = libc::user_regs_struct {
            rip: before.rip - 2,
            rax: libc::SYS_prctl as u64,
            rdi: libc::PR_SET_NAME as u64,
            rsi: address,
            // The call that was interrupted is not taken up here.
            orig_rax: u64::MAX,
            ..before
        };
        self.set_registers(call)?;
        ptrace(
            libc::PTRACE_SINGLESTEP,
            self.0,
            ptr::null_mut(),
            ptr::null_mut(),
        )?;
        self.wait()?;
        let result = self.registers()?.rax.cast_signed();
        self.set_registers(before)?;
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(-result as i32))
        }
    }

    fn registers(&self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: numbers, for which zeroes are a value.
        let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
        let data = (&raw mut registers).cast();
        ptrace(libc::PTRACE_GETREGS, self.0, ptr::null_mut(), data)?;
        Ok(registers)
    }

    fn set_registers(&self, mut registers: libc::user_regs_struct) -> io::Result<()> {
        let data = (&raw mut registers).cast();
        ptrace(libc::PTRACE_SETREGS, self.0, ptr::null_mut(), data).map(drop)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may be dead.
        let _ = ptrace(
            libc::PTRACE_DETACH,
            self.0,
            ptr::null_mut(),
            ptr::null_mut(),
        );
    }
}

fn ptrace(
    request: libc::c_uint,
    pid: libc::pid_t,
    address: *mut c_void,
    data: *mut c_void,
) -> io::Result<libc::c_long> {
    // A word that was read can be -1 too.
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = 0 };
    // SAFETY: of this process's memory, only what `data` of the requests for registers points to is
    // touched, and that is a structure of theirs.
    let result = unsafe { libc::ptrace(request, pid, address, data) };
    match io::Error::last_os_error() {
        error if result == -1 && error.raw_os_error() != Some(0) => Err(error),
        _ => Ok(result),
    }
}
