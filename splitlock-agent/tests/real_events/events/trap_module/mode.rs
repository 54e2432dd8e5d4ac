//! What the kernel does about locks, which is the whole machine's and otherwise set at boot.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use anyhow::{Context, Result, bail};

use super::device::{BUS_LOCK_DETECT, Device, RawMode, SPLIT_LOCK_DETECT};

/// A value of `split_lock_detect=` on the kernel's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No CPU reports locks then. If one did: user split locks are treated as in
    /// [`Warn`](Self::Warn), guest ones as in [`Fatal`](Self::Fatal), and bus locks are ignored.
    Off,
    /// A line in the kernel log; for split locks from 5.19 on a delay of 10 ms or more.
    Warn,
    /// SIGBUS, one for each.
    Fatal,
    /// Bus locks get their line in the log and are slowed down, all of the machine together; split
    /// locks are treated as in [`Off`](Self::Off). From 5.14 on.
    Ratelimit {
        /// Bus locks per second, 1 to 1000.
        per_second: u32,
    },
}

/// Whether this kernel has [`Mode::Ratelimit`].
pub fn ratelimit_available() -> Result<(), String> {
    let device = Device::open().map_err(|error| format!("{error:#}"))?;
    // A rate that is out of range changes nothing.
    let absurd = Mode::Ratelimit { per_second: 0 };
    match device.set_mode(absurd.to_raw()) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Err(error) => Err(format!("no ratelimit mode before Linux 5.14: {error}")),
        Ok(()) => Err("the trap module took a rate of 0 per second".to_owned()),
    }
}

/// The mode now.
pub fn mode() -> Result<Mode> {
    Mode::from_raw(Device::open()?.mode()?)
}

/// Sets the mode until the returned value is dropped, which brings the former one back. Waits for
/// other tests that hold one. No bus lock may be under way.
pub fn set_mode(mode: Mode) -> Result<ModeGuard> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that panicked with the guard in its hands has restored the mode all the same.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::open()?;
    let guard = ModeGuard {
        former_mode: device.mode()?,
        former_mitigation: None,
        former_flags: None,
        device,
        _turn: turn,
    };
    guard.change(mode)?;
    Ok(guard)
}

/// Keeps the mode, and other tests from setting it.
#[must_use = "dropping it restores the former mode"]
pub struct ModeGuard {
    former_mode: RawMode,
    /// What the sysctl read, if it was changed.
    former_mitigation: Option<String>,
    /// What `/proc/cpuinfo` showed, if that was changed.
    former_flags: Option<u32>,
    device: Device,
    _turn: MutexGuard<'static, ()>,
}

impl ModeGuard {
    /// Sets another mode, also for only as long as this value lives.
    pub fn change(&self, mode: Mode) -> Result<()> {
        self.device
            .set_mode(mode.to_raw())
            .with_context(|| format!("setting the mode {mode:?}"))
    }

    /// Turns the delay of split locks on or off, also for only as long as this value lives. The
    /// sysctl has been there since 6.2 and is in the stable 6.0 and 6.1.
    pub fn set_mitigation(&mut self, on: bool) -> Result<()> {
        let former = fs::read_to_string(MITIGATION).context(MITIGATION)?;
        self.former_mitigation.get_or_insert(former);
        fs::write(MITIGATION, if on { "1" } else { "0" }).context(MITIGATION)
    }

    /// Has `/proc/cpuinfo` show these flags or not, also for only as long as this value lives. The
    /// kernel does not care. `bus_lock_detect` is from 5.13 on.
    pub fn set_cpu_flags(&mut self, split_lock_detect: bool, bus_lock_detect: bool) -> Result<()> {
        let mut flags = 0;
        if split_lock_detect {
            flags |= SPLIT_LOCK_DETECT;
        }
        if bus_lock_detect {
            flags |= BUS_LOCK_DETECT;
        }
        let former = self.device.swap_flags(flags);
        self.former_flags
            .get_or_insert(former.context("changing the CPU's flags")?);
        Ok(())
    }
}

const MITIGATION: &str = "/proc/sys/kernel/split_lock_mitigate";

impl Drop for ModeGuard {
    fn drop(&mut self) {
        let restored: [io::Result<()>; 3] = [
            self.device.set_mode(self.former_mode),
            match &self.former_mitigation {
                Some(former) => fs::write(MITIGATION, former),
                None => Ok(()),
            },
            match self.former_flags {
                Some(former) => self.device.swap_flags(former).map(drop),
                None => Ok(()),
            },
        ];
        // Not a panic: another one may be under way.
        for error in restored.into_iter().filter_map(Result::err) {
            eprintln!("restoring the mode, the mitigation or the flags: {error}");
        }
    }
}

impl Mode {
    /// As `enum split_lock_detect_state` (v6.18 arch/x86/kernel/cpu/bus_lock.c), the same since 5.7.
    fn to_raw(self) -> RawMode {
        let (mode, per_second) = match self {
            Self::Off => (0, 0),
            Self::Warn => (1, 0),
            Self::Fatal => (2, 0),
            Self::Ratelimit { per_second } => (3, per_second),
        };
        RawMode { mode, per_second }
    }

    fn from_raw(RawMode { mode, per_second }: RawMode) -> Result<Self> {
        Ok(match mode {
            0 => Self::Off,
            1 => Self::Warn,
            2 => Self::Fatal,
            3 => Self::Ratelimit { per_second },
            other => bail!("sld_state is {other}, which no kernel up to 7.3 has"),
        })
    }
}
