//! An emulated hypervisor with tenants that lock the bus, for `cargo xtask fleet`.
//!
//! Its traps, delays and counts are its kernel's own; that the CPU does not raise the exception is
//! all that differs from a real one, see `xtask/rig/trap-module`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    archive::Archive,
    boot::{ADDRESS, Machine, Running, TO_BOOT},
    initramfs::{self, Vmm, Work},
    kernels::{self, Kernel},
    programs::{self, Programs},
    protocol::{Hypervisor, Report},
    qemu::Qemu,
    scenarios::HYPERVISOR,
    sources::Mirror,
    trap_module,
};
use crate::{steps::Steps, workspace::Workspace};

/// From `rig-init` to the agent's first answer: 4 s on an idle machine.
const TO_SERVE: Duration = Duration::from_secs(120);
/// How long nothing is looked at while it boots.
const LOOK: Duration = Duration::from_millis(100);

/// What a hypervisor needs to boot.
pub struct Prepared {
    programs: Programs,
    qemu: Qemu,
    kernel: Kernel,
    trap_module: PathBuf,
    boots: PathBuf,
}

/// One that runs its tenants and its agent. It ends with this value, and with xtask.
pub struct Emulated {
    running: Running,
    log: PathBuf,
}

/// Gets the kernel that a word names, and all that it needs.
pub fn prepare(workspace: &Workspace, steps: &mut Steps, kernel: &str) -> Result<Prepared> {
    let folder = workspace.build_dir.join("vm");
    let programs = steps.run("build the programs for the emulated hypervisor", || {
        programs::build(workspace)
    })?;
    let (archive, kernel, qemu) = steps.run("get a kernel and QEMU", || {
        let archive = Archive::open(&folder.join("apt"), &Mirror::of_this_machine()?)?;
        let mut kernels = kernels::get(&archive, &[kernel.to_owned()], &folder.join("kernels"))?;
        let kernel = kernels.remove(0);
        let qemu = Qemu::get(&archive, &folder.join("qemu"))?;
        eprintln!("{}\n{}", kernel.release, qemu.path().display());
        Ok((archive, kernel, qemu))
    })?;
    let trap_module = steps.run("compile the trap module", || {
        let sources = workspace.root.join("xtask/rig/trap-module");
        trap_module::build(&archive, &kernel, &sources, &folder)?
            .context("without it nothing traps: choose another kernel")
    })?;
    Ok(Prepared {
        programs,
        qemu,
        kernel,
        trap_module,
        boots: folder.join("boots"),
    })
}

impl Prepared {
    /// The kernel's release.
    pub fn release(&self) -> &str {
        &self.kernel.release
    }

    /// Boots it as the host of this name, and once more if that hangs. Its agent then serves on
    /// `agent_port` of the loopback. `tenants` are words for `real_events hypervisor`, `folder` is
    /// for a file that the boot needs. `go_on` is asked all the while, and its error ends it.
    pub fn boot(
        &self,
        name: &str,
        tenants: Vec<String>,
        agent_port: u16,
        folder: &Path,
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Emulated> {
        let initramfs = folder.join("initramfs.cpio");
        let hypervisor = Hypervisor {
            name: name.to_owned(),
            address: ADDRESS,
            tenants,
        };
        initramfs::write(
            &initramfs,
            &self.kernel,
            &self.programs,
            Some(&self.trap_module),
            &Vmm::Qemu(self.qemu.files()?),
            &HYPERVISOR,
            Work::Hypervisor(&hypervisor),
        )?;
        fs::create_dir_all(&self.boots)
            .with_context(|| format!("cannot create {}", self.boots.display()))?;
        let machine = Machine {
            qemu: &self.qemu,
            kernel: &self.kernel,
            scenario: &HYPERVISOR,
            initramfs: &initramfs,
            log: self.boots.join(format!("{name}.log")),
            cpus: 1,
            counts_instructions: false,
            patience: 1,
            agent_port: Some(agent_port),
        };
        if let Some(emulated) = attempt(&machine, go_on)? {
            return Ok(emulated);
        }
        eprintln!("{name} hangs; once more");
        attempt(&machine, go_on)?
            .with_context(|| format!("{name} hung twice; see {}", machine.log.display()))
    }
}

/// Nothing if it hangs.
fn attempt(machine: &Machine<'_>, go_on: &dyn Fn() -> Result<()>) -> Result<Option<Emulated>> {
    let emulated = Emulated {
        running: machine.start()?,
        log: machine.log.clone(),
    };
    let (mut since, mut limit) = (Instant::now(), TO_BOOT);
    while since.elapsed() < limit {
        go_on()?;
        match emulated.report()? {
            Some(Report::Agent { .. }) => return Ok(Some(emulated)),
            Some(Report::Booted { .. }) => (since, limit) = (Instant::now(), TO_SERVE),
            _ => {}
        }
    }
    Ok(None)
}

impl Emulated {
    /// An error once it has ended, or has failed.
    pub fn check(&self) -> Result<()> {
        while self.report()?.is_some() {}
        Ok(())
    }

    /// What it reports within a moment.
    fn report(&self) -> Result<Option<Report>> {
        let log = || format!("see {}", self.log.display());
        match self.running.reports.recv_timeout(LOOK) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(Report::Failed { error } | Report::AgentFailed { error }) => {
                    bail!("{error}; {}", log())
                }
                Ok(report) => Ok(Some(report)),
                Err(error) => bail!("{error} in report {line:?}; {}", log()),
            },
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                bail!(
                    "the machine went down; {} and the .qemu.log beside it",
                    log()
                )
            }
        }
    }
}
