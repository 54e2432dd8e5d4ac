//! The machine: file systems, modules, its name, processes, its end.

use std::{
    ffi::CStr,
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Error, Result};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    process::{WaitOptions, wait},
    system::{RebootCommand, finit_module, reboot, sethostname, uname},
};

use crate::protocol::MODULES;

/// File system, folder, options: what every distribution has mounted, but tracefs.
const MOUNTS: [(&str, &str, &CStr); 9] = [
    ("proc", "/proc", c""),
    ("sysfs", "/sys", c""),
    ("securityfs", "/sys/kernel/security", c""),
    ("devtmpfs", "/dev", c""),
    ("devpts", "/dev/pts", c""),
    ("tmpfs", "/dev/shm", c""),
    ("tmpfs", "/tmp", c"mode=1777"),
    ("tmpfs", "/run", c"mode=0755"),
    ("cgroup2", "/sys/fs/cgroup", c""),
];

/// Mounts them all.
pub fn mount_all() -> Result<()> {
    for (kind, folder, options) in MOUNTS {
        mount_one(kind, folder, options)?;
    }
    Ok(())
}

/// Mounts tracefs where current distributions have it.
pub fn mount_tracefs() -> Result<()> {
    mount_one("tracefs", "/sys/kernel/tracing", c"")
}

/// Mounts an empty file system over a folder.
pub fn hide(folder: &str) -> Result<()> {
    mount_one("tmpfs", folder, c"")
}

fn mount_one(kind: &str, folder: &str, options: &CStr) -> Result<()> {
    // The kernel makes its own folders below /sys, where nobody else can.
    if !Path::new(folder).exists() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
    }
    mount(kind, folder, kind, MountFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} at {folder}"))
}

/// `uname -r`.
pub fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Loads a module of the initramfs.
pub fn load_module(file: &str) -> Result<()> {
    let path = format!("{MODULES}/{file}");
    let module = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    finit_module(&module, c"", 0).with_context(|| format!("cannot load {path}"))
}

/// Sets the host's name.
pub fn set_name(name: &str) -> Result<()> {
    sethostname(name.as_bytes()).with_context(|| format!("cannot be called {name}"))
}

/// Reaps children until this one has ended: process 1 inherits all orphans.
pub fn reap_until(worker: u32) -> Result<()> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid.as_raw_nonzero().get().unsigned_abs() == worker => {
                return Ok(());
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the worker"),
        }
    }
}

/// Ends the machine: QEMU's `-no-reboot` makes its end of a restart. Returns only if that fails.
pub fn end() -> Error {
    match reboot(RebootCommand::Restart) {
        Ok(()) => Error::msg("the restart did not happen"),
        Err(error) => Error::new(error),
    }
}
