//! The device of the rig's module. `xtask/rig/trap-module/splitlock_trap.c` has the other side.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use anyhow::{Context, Result};

const PATH: &str = "/dev/splitlock_trap";

/// `/dev/splitlock_trap`, open.
pub struct Device(File);

/// Which of the kernel's functions is called.
#[derive(Clone, Copy)]
pub enum Handler {
    /// `handle_user_split_lock`
    User,
    /// `handle_guest_split_lock`
    Guest,
    /// `handle_bus_lock`
    Bus,
}

/// `struct splitlock_trap_call`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Call {
    /// The instruction pointer that the handler sees.
    pub ip: u64,
    /// Bits to add to the EFLAGS that it sees: none, or EFLAGS.AC.
    pub flags: u64,
    /// How often to call. With 0, the module only says whether it can.
    pub repeat: u64,
    /// How often the module called. It stops when a signal is pending, but not before the first.
    pub made: u64,
    /// How many of these calls returned true.
    pub returned_true: u64,
    /// Time inside these calls.
    pub nanoseconds: u64,
}

/// `struct splitlock_trap_mode`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct RawMode {
    /// `sld_state`
    pub mode: u32,
    /// Of ratelimit mode; otherwise 0.
    pub per_second: u32,
}

impl Device {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(PATH);
        Ok(Self(file.context(PATH)?))
    }

    /// Calls a handler; EOPNOTSUPP where this kernel has none.
    pub fn call(&self, handler: Handler, mut call: Call) -> io::Result<Call> {
        let request = match handler {
            Handler::User => request::<Call>(READ | WRITE, 0),
            Handler::Guest => request::<Call>(READ | WRITE, 1),
            Handler::Bus => request::<Call>(READ | WRITE, 2),
        };
        // SAFETY: the module reads and writes one Call, which is ours.
        unsafe { self.ioctl(request, &mut call) }?;
        Ok(call)
    }

    /// Sets the mode; EOPNOTSUPP where this kernel does not have it, and then EINVAL for a rate that
    /// is out of range.
    pub fn set_mode(&self, mut mode: RawMode) -> io::Result<()> {
        // SAFETY: the module reads one RawMode.
        unsafe { self.ioctl(request::<RawMode>(WRITE, 3), &mut mode) }
    }

    /// The mode now.
    pub fn mode(&self) -> io::Result<RawMode> {
        let mut mode = RawMode::default();
        // SAFETY: the module writes one RawMode, which is ours.
        unsafe { self.ioctl(request::<RawMode>(READ, 4), &mut mode) }?;
        Ok(mode)
    }

    /// Sets which of the flags below `/proc/cpuinfo` shows, and returns those that it did; EOPNOTSUPP
    /// where this kernel does not know one of them.
    pub fn swap_flags(&self, mut flags: u32) -> io::Result<u32> {
        // SAFETY: the module reads and writes one u32, which is ours.
        unsafe { self.ioctl(request::<u32>(READ | WRITE, 5), &mut flags) }?;
        Ok(flags)
    }

    /// Has the kernel hold the lock of this process's address space for a time.
    pub fn hold_address_space(&self, time: Duration) -> io::Result<()> {
        const PAGE: libc::off_t = 4096;
        let offset = libc::off_t::try_from(time.as_millis()).map_err(io::Error::other)? * PAGE;
        let descriptor = self.0.as_raw_fd();
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory in use.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                4096,
                libc::PROT_READ,
                libc::MAP_SHARED,
                descriptor,
                offset,
            )
        };
        match io::Error::last_os_error() {
            error if page == libc::MAP_FAILED && error.raw_os_error() == Some(libc::ENODEV) => {
                Ok(())
            }
            error if page == libc::MAP_FAILED => Err(error),
            _ => Err(io::Error::other("the module mapped something")),
        }
    }

    /// # Safety
    ///
    /// `argument` has to be what `request` is about.
    unsafe fn ioctl<T>(&self, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: the caller answers for the argument, and the module keeps no pointer to it.
        let status =
            unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, ptr::from_mut(argument)) };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// `split_lock_detect`, for [`Device::swap_flags`].
pub const SPLIT_LOCK_DETECT: u32 = 0x1;
/// `bus_lock_detect`, from 5.13 on.
pub const BUS_LOCK_DETECT: u32 = 0x2;

/// `_IOC_WRITE` and `_IOC_READ` of include/uapi/asm-generic/ioctl.h: what user space does.
const WRITE: libc::c_ulong = 1;
const READ: libc::c_ulong = 2;

/// `_IOC(direction, 'l', number, sizeof(T))`.
const fn request<T>(direction: libc::c_ulong, number: libc::c_ulong) -> libc::c_ulong {
    let size = size_of::<T>() as libc::c_ulong;
    direction << 30 | size << 16 | (b'l' as libc::c_ulong) << 8 | number
}
