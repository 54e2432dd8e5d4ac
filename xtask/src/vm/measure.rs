//! The benchmark on machines that count instructions, for `cargo xtask bench rig`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    archive::Archive,
    boot::Machine,
    initramfs::{self, Benchmark, Vmm, Work},
    kernels::{self, Kernel},
    programs::{self, Programs},
    qemu::Qemu,
    scenarios::MEASURING,
    sources::Mirror,
};
use crate::{steps::Steps, workspace::Workspace};

/// A round of all programs without a report takes minutes on the newest kernels.
const PATIENCE: u32 = 6;

/// Writes to a port, and so exits, in each round.
const EXITS: u32 = 5_000;

/// What one machine measured.
pub struct Measured {
    /// The kernel's series, as `6.12`.
    pub series: String,
    /// As `uname -r` says it.
    pub release: String,
    /// The benchmark's lines.
    pub lines: Vec<Value>,
}

/// Runs the benchmark on each of these kernels.
pub fn measure(
    workspace: &Workspace,
    steps: &mut Steps,
    kernels: &[String],
    rounds: u32,
) -> Result<Vec<Measured>> {
    let folder = workspace.build_dir.join("vm");
    let (programs, program) = steps.run("build the programs for all kernels", || {
        Ok((
            programs::build(workspace)?,
            programs::build_benchmark(workspace)?,
        ))
    })?;
    let (qemu, kernels) = steps.run("get the kernels and QEMU", || {
        let archive = Archive::open(&folder.join("apt"), &Mirror::of_this_machine()?)?;
        let kernels = kernels::get(&archive, kernels, &folder.join("kernels"))?;
        Ok((Qemu::get(&archive, &folder.join("qemu"))?, kernels))
    })?;
    let benchmark = Benchmark {
        program,
        args: ["instructions", &rounds.to_string(), &EXITS.to_string()]
            .map(str::to_owned)
            .to_vec(),
    };
    steps.run("measure instructions", || {
        kernels
            .iter()
            .map(|kernel| on(kernel, &folder, &programs, &benchmark, &qemu))
            .collect()
    })
}

fn on(
    kernel: &Kernel,
    folder: &Path,
    programs: &Programs,
    benchmark: &Benchmark,
    qemu: &Qemu,
) -> Result<Measured> {
    let name = format!("{}-{}", kernel.series, MEASURING.name);
    let boots = folder.join("boots");
    fs::create_dir_all(&boots).with_context(|| format!("cannot create {}", boots.display()))?;
    let initramfs = boots.join(format!("{name}.cpio"));
    initramfs::write(
        &initramfs,
        kernel,
        programs,
        None,
        &Vmm::Qemu(qemu.files()?),
        &MEASURING,
        Work::Benchmark(benchmark),
    )?;
    let machine = Machine {
        qemu,
        kernel,
        scenario: &MEASURING,
        initramfs: &initramfs,
        log: boots.join(format!("{name}.log")),
        cpus: 1,
        counts_instructions: true,
        patience: PATIENCE,
        agent_port: None,
    };
    let boot = machine.boot(&|line| eprintln!("[{name}] {line}"))?;
    let _ = fs::remove_file(&initramfs);
    let failures = boot.failures();
    if !failures.is_empty() {
        bail!(
            "{}: {}, see {}",
            kernel.release,
            failures.join("; "),
            boot.log.display()
        );
    }
    Ok(Measured {
        series: boot.kernel,
        release: boot.release,
        lines: boot.measured,
    })
}
