//! From what a hook sees to an event. The rules are the same on both sides; the BPF programs
//! call them inline.
//!
//! Kernel sources meant: `arch/x86/kernel/cpu/bus_lock.c` (before 6.14 `intel.c`) and
//! `arch/x86/kernel/traps.c`,
//! <https://github.com/torvalds/linux/blob/v6.18/arch/x86/kernel/cpu/bus_lock.c>.

use crate::{
    authority::{Armed, Hook},
    mode::Mode,
    trap::Event,
};

/// `SIGBUS` on x86.
pub const SIGBUS: i32 = 7;
/// `si_code` of an invalid address alignment.
pub const BUS_ADRALN: i32 = 1;
/// EFLAGS.AC (alignment check enable), bit 18.
pub const EFLAGS_AC: u64 = 1 << 18;
/// `orig_ax` of a task that entered the kernel by an exception, not by a system call.
pub const ORIG_AX_EXCEPTION: i64 = -1;
/// `__NR_ioctl` of x86-64: the system call in which a VMM's thread runs its guest.
pub const SYSCALL_IOCTL: i64 = 16;
/// Vector of the alignment-check exception.
pub const VECTOR_AC: u32 = 17;
/// `KVM_EXIT_X86_BUS_LOCK`, include/uapi/linux/kvm.h.
pub const KVM_EXIT_X86_BUS_LOCK: u32 = 33;

/// The ratelimit mode sleeps in steps of 20 ms (`handle_bus_lock`: `msleep(20)`).
pub const THROTTLE_STEP_NS: u64 = 20_000_000;

/// A SIGBUS with code BUS_ADRALN, judged by the registers that the sending task entered the
/// kernel with. The signal proves nothing by itself: `rt_sigqueueinfo` lets an unprivileged
/// process send itself any positive code, but then `orig_ax` is that system call's number.
///
/// `None` is a signal that a process sent.
#[inline(always)]
pub fn sigbus(orig_ax: i64, eflags: u64, armed: Armed) -> Option<Event> {
    if orig_ax == ORIG_AX_EXCEPTION {
        if eflags & EFLAGS_AC != 0 {
            Some(Event::AlignmentCheck)
        } else if matches!(armed, Armed::BusLock) {
            Some(Event::UserBusLockSigbus)
        } else {
            Some(Event::UserSplitLockSigbus)
        }
    } else if orig_ax == SYSCALL_IOCTL {
        Some(Event::GuestSplitLockSigbus)
    } else {
        None
    }
}

/// `SIGKILL` on x86.
const SIGKILL: i32 = 9;

const fn signal_bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Whether a SIGBUS is one that was sent before and is sent anew, with the code and the registers
/// that a tracer chose, and no fault's.
///
/// A tracer may replace the signal at which its tracee stops, and if the tracee blocks the new one
/// or is being killed, the kernel sends it anew, in the tracee's name and also after the tracer has
/// let go (`ptrace_signal` in kernel/signal.c). A fault's signal is unblocked before it is sent
/// (`force_sig_info_to_task`); one of a task that is being killed is not told from a forged one,
/// and its last trap goes uncounted. `blocked` and `pending` are the task's sets, bit `n - 1` for
/// signal `n`.
#[inline(always)]
pub const fn sigbus_requeued(blocked: u64, pending: u64) -> bool {
    blocked & signal_bit(SIGBUS) != 0 || pending & signal_bit(SIGKILL) != 0
}

/// The return of `handle_user_split_lock(regs, error_code)`: true lets the task go on; false is
/// an alignment check that the task asked for, or the fatal mode, and SIGBUS follows.
#[inline(always)]
pub fn user_split_lock(eflags: u64, handled: bool) -> Event {
    if eflags & EFLAGS_AC != 0 {
        Event::AlignmentCheck
    } else if handled {
        Event::UserSplitLockWarned
    } else {
        Event::UserSplitLockSigbus
    }
}

/// The return of `handle_guest_split_lock(ip)`: true lets the guest go on, false sent SIGBUS to
/// the VMM's thread.
#[inline(always)]
pub fn guest_split_lock(handled: bool) -> Event {
    if handled {
        Event::GuestSplitLockWarned
    } else {
        Event::GuestSplitLockSigbus
    }
}

/// The return of `handle_bus_lock(regs)`, which tells nothing itself: what was seen between its
/// entry and its return does. A slow console can hold a warning up for as long as a throttling
/// step, so the time counts only in ratelimit mode. `None` where the kernel did nothing.
#[inline(always)]
pub fn user_bus_lock(sigbus_sent: bool, inside_ns: u64, mode: Mode) -> Option<Event> {
    if sigbus_sent {
        Some(Event::UserBusLockSigbus)
    } else if matches!(mode, Mode::Off) {
        None
    } else if matches!(mode, Mode::Ratelimit) && inside_ns >= THROTTLE_STEP_NS {
        Some(Event::UserBusLockThrottled)
    } else {
        Some(Event::UserBusLockWarned)
    }
}

/// A call of one of the functions whose return was not seen: what followed decides. `None` where
/// nothing is to be counted.
#[inline(always)]
pub fn unseen_return(hook: Hook, eflags: u64, sigbus_sent: bool, mode: Mode) -> Option<Event> {
    match hook {
        Hook::HandleUserSplitLock => Some(user_split_lock(eflags, !sigbus_sent)),
        Hook::HandleGuestSplitLock => Some(guest_split_lock(!sigbus_sent)),
        Hook::HandleBusLock => user_bus_lock(sigbus_sent, 0, mode),
        _ => None,
    }
}

/// `kvm_inj_exception`: an exception that KVM put into a guest. One that is put in again after
/// an interrupted delivery (`reinjected`) is still the same event.
#[inline(always)]
pub fn injected_exception(vector: u32, reinjected: bool) -> Option<Event> {
    if vector == VECTOR_AC && !reinjected {
        Some(Event::AcInjected)
    } else {
        None
    }
}

/// `kvm_userspace_exit`: a bus lock handed to the VMM. With an error the reason is stale.
#[inline(always)]
pub fn userspace_exit(reason: u32, errno: i32) -> Option<Event> {
    if reason == KVM_EXIT_X86_BUS_LOCK && errno >= 0 {
        Some(Event::GuestBusLockReported)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Linux task's EFLAGS look like otherwise: interrupts on, reserved bit 1.
    const PLAIN: u64 = 0x202;

    #[test]
    fn an_exception_with_the_alignment_flag_is_no_lock() {
        for armed in [Armed::Unknown, Armed::SplitLock, Armed::BusLock] {
            assert_eq!(
                sigbus(-1, PLAIN | EFLAGS_AC, armed),
                Some(Event::AlignmentCheck)
            );
        }
    }

    #[test]
    fn an_exception_without_it_is_the_lock_that_is_armed() {
        assert_eq!(
            sigbus(-1, PLAIN, Armed::SplitLock),
            Some(Event::UserSplitLockSigbus)
        );
        assert_eq!(
            sigbus(-1, PLAIN, Armed::Unknown),
            Some(Event::UserSplitLockSigbus)
        );
        assert_eq!(
            sigbus(-1, PLAIN, Armed::BusLock),
            Some(Event::UserBusLockSigbus)
        );
    }

    #[test]
    fn an_ioctl_is_a_guest_whatever_the_vmm_had_in_its_flags() {
        for flags in [PLAIN, PLAIN | EFLAGS_AC] {
            assert_eq!(
                sigbus(16, flags, Armed::SplitLock),
                Some(Event::GuestSplitLockSigbus)
            );
        }
    }

    #[test]
    fn a_sent_signal_is_nothing() {
        // rt_sigqueueinfo 129, rt_tgsigqueueinfo 297, pidfd_send_signal 424, kill 62; their
        // 32-bit numbers 178, 335; and values that no system call has.
        for orig_ax in [
            129,
            297,
            424,
            62,
            178,
            335,
            0,
            15,
            17,
            -2,
            i64::MIN,
            i64::MAX,
        ] {
            for flags in [PLAIN, PLAIN | EFLAGS_AC] {
                assert_eq!(sigbus(orig_ax, flags, Armed::SplitLock), None, "{orig_ax}");
            }
        }
    }

    #[test]
    fn what_is_sent_anew_is_nothing() {
        let (bus, kill) = (1 << 6, 1 << 8);
        assert!(sigbus_requeued(bus, 0));
        assert!(sigbus_requeued(!0, 0));
        assert!(sigbus_requeued(0, kill));
        // A task that traps may block and await any other signal.
        assert!(!sigbus_requeued(0, 0));
        assert!(!sigbus_requeued(!bus, !kill));
    }

    #[test]
    fn the_user_handler_is_read_by_flag_then_by_result() {
        assert_eq!(user_split_lock(PLAIN, true), Event::UserSplitLockWarned);
        assert_eq!(user_split_lock(PLAIN, false), Event::UserSplitLockSigbus);
        assert_eq!(
            user_split_lock(PLAIN | EFLAGS_AC, false),
            Event::AlignmentCheck
        );
        assert_eq!(
            user_split_lock(PLAIN | EFLAGS_AC, true),
            Event::AlignmentCheck
        );
    }

    #[test]
    fn the_guest_handler_is_read_by_result() {
        assert_eq!(guest_split_lock(true), Event::GuestSplitLockWarned);
        assert_eq!(guest_split_lock(false), Event::GuestSplitLockSigbus);
    }

    #[test]
    fn a_bus_lock_is_read_by_what_happened_inside() {
        let step = THROTTLE_STEP_NS;
        let (warned, throttled, sigbus) = (
            Some(Event::UserBusLockWarned),
            Some(Event::UserBusLockThrottled),
            Some(Event::UserBusLockSigbus),
        );
        assert_eq!(user_bus_lock(true, 5 * step, Mode::Ratelimit), sigbus);
        assert_eq!(user_bus_lock(true, 0, Mode::Off), sigbus);
        assert_eq!(user_bus_lock(false, step, Mode::Ratelimit), throttled);
        assert_eq!(user_bus_lock(false, step - 1, Mode::Ratelimit), warned);
        assert_eq!(user_bus_lock(false, 5 * step, Mode::Warn), warned);
        assert_eq!(user_bus_lock(false, 5 * step, Mode::Unknown), warned);
        assert_eq!(user_bus_lock(false, 5 * step, Mode::Off), None);
    }

    #[test]
    fn an_unseen_return_is_read_by_what_followed() {
        let read = |hook, eflags, sigbus| unseen_return(hook, eflags, sigbus, Mode::Warn);
        let (user, guest) = (Hook::HandleUserSplitLock, Hook::HandleGuestSplitLock);
        assert_eq!(read(user, PLAIN, false), Some(Event::UserSplitLockWarned));
        assert_eq!(read(user, PLAIN, true), Some(Event::UserSplitLockSigbus));
        assert_eq!(
            read(user, PLAIN | EFLAGS_AC, true),
            Some(Event::AlignmentCheck)
        );
        assert_eq!(read(guest, 0, false), Some(Event::GuestSplitLockWarned));
        assert_eq!(read(guest, 0, true), Some(Event::GuestSplitLockSigbus));
        assert_eq!(
            read(Hook::HandleBusLock, PLAIN, true),
            Some(Event::UserBusLockSigbus)
        );
        assert_eq!(read(Hook::SplitLockWarn, 0, false), None);
    }

    #[test]
    fn only_a_fresh_alignment_check_is_an_injection() {
        assert_eq!(injected_exception(17, false), Some(Event::AcInjected));
        assert_eq!(injected_exception(17, true), None);
        for vector in [0, 1, 13, 14, 16, 18, 255] {
            assert_eq!(injected_exception(vector, false), None);
        }
    }

    #[test]
    fn a_stale_reason_is_no_bus_lock() {
        assert_eq!(userspace_exit(33, 0), Some(Event::GuestBusLockReported));
        assert_eq!(userspace_exit(33, -4), None);
        assert_eq!(userspace_exit(2, 0), None);
    }
}
