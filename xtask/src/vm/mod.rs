//! `cargo xtask vm`: the agent and its tests on real kernels, emulated.
//!
//! The kernels are Debian's packages of several releases, [`kernels`]; QEMU emulates a machine
//! with nested KVM for each, [`boot`]; its process 1 is `rig-init` of `xtask/rig/init`, which
//! obeys an order and reports, [`protocol`]. Everything is kept in the target folder. The same machine
//! can be a host with tenants, [`hypervisor`], for `cargo xtask fleet`.

mod archive;
mod boot;
mod candidates;
mod coverage;
mod hypervisor;
mod initramfs;
mod kernels;
mod libvirt;
mod measure;
pub mod packages;
mod programs;
mod protocol;
mod qemu;
mod report;
mod results;
mod scenarios;
mod sources;
mod system;
mod trap_module;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Error, Result, bail};

pub use self::{
    archive::Archive,
    hypervisor::{Emulated, Prepared, prepare as prepare_hypervisor},
    measure::{Measured, measure},
    programs::build_benchmark,
};
use self::{
    boot::Machine,
    initramfs::{Vmm, Work},
    kernels::Kernel,
    libvirt::Libvirt,
    programs::Programs,
    qemu::Qemu,
    results::Boot,
    scenarios::{LACKING, Scenario, Tests, USUAL},
    sources::Mirror,
};
use crate::{setup, steps::Steps, workspace::Workspace};

/// CPUs of a machine, but where one has to be able to go. On two cores, two machines at a time with one CPU each took 24 s for the
/// tests on guests, with two CPUs each 43 s, and one after the other with two CPUs 60 s; nested
/// guests with several vCPUs then hung once.
const CPUS: usize = 1;

#[derive(clap::Args)]
pub struct VmOptions {
    /// Series (6.12), whole releases, `oldest` or `newest`; by default the kernels of Debian's
    /// releases and the newest two
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Run only the tests whose names contain this, and boot only the usual way
    #[arg(long, value_name = "FILTER")]
    test: Option<String>,
    /// Boot only in this way: usual, changing-machine, …
    #[arg(long, value_name = "NAME", value_parser = scenario)]
    scenario: Option<Scenario>,
    /// Put the table of the kernels into docs/kernel-coverage.md
    #[arg(long, conflicts_with = "test")]
    update_docs: bool,
    /// A mirror of Debian, as http://MIRROR/debian; by default the one in apt's configuration
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Wait so many times as long for a test, and for a boot
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    patience: u32,
}

impl VmOptions {
    /// Those of a run with the oldest and the newest kernel.
    pub fn ends() -> Self {
        Self {
            kernels: ["oldest", "newest"].map(str::to_owned).to_vec(),
            test: None,
            scenario: None,
            update_docs: false,
            mirror: None,
            patience: 1,
        }
    }
}

/// The packages of Debian's suites, by this machine's mirror.
pub fn open_archive(folder: &Path) -> Result<Archive> {
    Archive::open(folder, &Mirror::of_this_machine()?)
}

/// What is the same for all boots.
struct Orders<'a> {
    /// Of tests, part of their names.
    filter: Option<&'a str>,
    patience: u32,
}

/// A kernel in one scenario.
struct Job<'a> {
    kernel: &'a Kernel,
    trap_module: Option<&'a Path>,
    scenario: Scenario,
    /// Whether it brings libvirt, if there is one.
    libvirt: bool,
}

/// Sets up and runs the rig.
pub fn vm(workspace: &Workspace, steps: &mut Steps, options: VmOptions) -> Result<()> {
    setup::setup(workspace, steps)?;
    run(workspace, steps, options)
}

/// Runs the rig.
pub fn run(workspace: &Workspace, steps: &mut Steps, options: VmOptions) -> Result<()> {
    let VmOptions {
        kernels,
        test,
        scenario,
        update_docs,
        mirror,
        patience,
    } = options;
    let folder = workspace.build_dir.join("vm");
    let programs = steps.run("build the programs for all kernels", || {
        programs::build(workspace)
    })?;
    let (archive, kernels) = steps.run("get the kernels", || {
        let mirror = match mirror {
            Some(url) => Mirror::named(&url),
            None => Mirror::of_this_machine()?,
        };
        let archive = Archive::open(&folder.join("apt"), &mirror)?;
        let kernels = kernels::get(&archive, &kernels, &folder.join("kernels"))?;
        for kernel in &kernels {
            eprintln!("{}: {}", kernel.series, kernel.release);
        }
        Ok((archive, kernels))
    })?;
    let qemu = steps.run("get QEMU", || {
        let qemu = Qemu::get(&archive, &folder.join("qemu"))?;
        eprintln!("{}", qemu.path().display());
        Ok(qemu)
    })?;
    // It is one test's, and the mirror may lack one of a hundred files.
    let libvirt = steps.run("get libvirt", || {
        match Libvirt::get(&archive, &folder.join("libvirt")) {
            Ok(libvirt) => {
                eprintln!("{}", libvirt.path().display());
                Ok(Some(libvirt))
            }
            Err(error) => {
                eprintln!("{error:#}; going on without libvirt");
                Ok(None)
            }
        }
    })?;
    let vmms = Vmms { qemu, libvirt };
    let sources = workspace.root.join("xtask/rig/trap-module");
    let modules = steps.run("compile the trap module for each kernel", || {
        kernels
            .iter()
            .map(|kernel| trap_module::build(&archive, kernel, &sources, &folder))
            .collect::<Result<Vec<Option<PathBuf>>>>()
    })?;
    let jobs = match scenario {
        Some(scenario) => jobs(&kernels, &modules, |_is_end| vec![scenario]),
        None if test.is_some() => jobs(&kernels, &modules, |_is_end| vec![USUAL]),
        None => jobs(&kernels, &modules, scenarios_of),
    };
    let orders = Orders {
        filter: test.as_deref(),
        patience,
    };
    steps.run("boot the kernels", || {
        let boots = boot_all(&folder, &programs, &vmms, &jobs, &orders)?;
        let file = folder.join("report.json");
        report::write(&file, &boots)?;
        eprintln!("{}\n{}", report::tables(&boots), file.display());
        if update_docs {
            coverage::update(&workspace.root.join("docs/kernel-coverage.md"), &boots)?;
        }
        judge(&boots)
    })
}

/// An error if one boot is a failure.
fn judge(boots: &[Boot]) -> Result<()> {
    let failed: Vec<String> = boots
        .iter()
        .filter(|boot| !boot.failures().is_empty())
        .map(|boot| format!("{} ({})", boot.kernel, boot.scenario))
        .collect();
    if !failed.is_empty() {
        bail!(
            "failed on {}; the logs named above tell more",
            failed.join(", ")
        );
    }
    Ok(())
}

/// What a machine runs, and runs under.
struct Vmms {
    qemu: Qemu,
    libvirt: Option<Libvirt>,
}

/// Every kernel boots the usual way, and the oldest and the newest in those that lack something; the
/// machine that changes, which takes minutes, is booted where it is asked for.
fn scenarios_of(is_end: bool) -> Vec<Scenario> {
    let mut scenarios = vec![USUAL];
    if is_end {
        scenarios.extend(LACKING);
    }
    scenarios
}

/// Every kernel in its scenarios; `is_end` for the oldest and the newest.
fn jobs<'a>(
    kernels: &'a [Kernel],
    modules: &'a [Option<PathBuf>],
    scenarios: impl Fn(bool) -> Vec<Scenario>,
) -> Vec<Job<'a>> {
    let mut jobs = Vec::new();
    for (index, (kernel, module)) in kernels.iter().zip(modules).enumerate() {
        let is_newest = index + 1 == kernels.len();
        for scenario in scenarios(index == 0 || is_newest) {
            jobs.push(Job {
                kernel,
                trap_module: module.as_deref(),
                scenario,
                // Emulated, it takes its time, and what it tells does not depend on the kernel.
                libvirt: scenario.tests == Tests::All && is_newest,
            });
        }
    }
    // The long ones first, so that at the end no core waits for one of them.
    jobs.sort_by_key(|job| (job.scenario.tests != Tests::All, !job.scenario.changes));
    jobs
}

/// A scenario by its name on the command line.
fn scenario(name: &str) -> Result<Scenario> {
    scenarios::named(name).with_context(|| format!("no scenario {name}"))
}

/// As many at a time as there are cores. The results are in the order of the jobs.
fn boot_all(
    folder: &Path,
    programs: &Programs,
    vmms: &Vmms,
    jobs: &[Job],
    orders: &Orders,
) -> Result<Vec<Boot>> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let queue = Mutex::new(jobs.iter().enumerate());
    let results: Mutex<Vec<(usize, Result<Boot>)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..(cores / CPUS).clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let Some((index, job)) = lock(&queue).next() else {
                        break;
                    };
                    let result = boot_one(folder, programs, vmms, job, orders);
                    lock(&results).push((index, result));
                }
            });
        }
    });
    let mut results = results
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn boot_one(
    folder: &Path,
    programs: &Programs,
    vmms: &Vmms,
    job: &Job,
    orders: &Orders,
) -> Result<Boot> {
    let Job {
        kernel,
        trap_module,
        scenario,
        libvirt,
    } = job;
    let vmm = match &vmms.libvirt {
        Some(files) if *libvirt => Vmm::Libvirt(files.files()?),
        _ => Vmm::Qemu(vmms.qemu.files()?),
    };
    let name = format!("{}-{}", kernel.series, scenario.name.replace(' ', "-"));
    let boots = folder.join("boots");
    fs::create_dir_all(&boots).with_context(|| format!("cannot create {}", boots.display()))?;
    let initramfs = boots.join(format!("{name}.cpio"));
    let args: Vec<String> = orders.filter.into_iter().map(str::to_owned).collect();
    initramfs::write(
        &initramfs,
        kernel,
        programs,
        *trap_module,
        &vmm,
        scenario,
        Work::Tests(&args),
    )?;
    let machine = Machine {
        qemu: &vmms.qemu,
        kernel,
        scenario,
        initramfs: &initramfs,
        log: boots.join(format!("{name}.log")),
        cpus: if scenario.changes { 2 } else { CPUS },
        counts_instructions: false,
        // A crowd of ten thousand takes longer there than any other test.
        patience: orders.patience * if scenario.changes { 2 } else { 1 },
        agent_port: None,
    };
    let result = machine.boot(&|line| eprintln!("[{name}] {line}"));
    // 90 MB each, made anew in a moment.
    let _ = fs::remove_file(&initramfs);
    result.map_err(|error: Error| error.context(format!("booting {}", kernel.release)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kernels_boot_and_those_at_the_ends_in_every_way() {
        let kernels = ["5.10.0-46", "6.1.0-56", "7.3.4+deb13"]
            .map(|release| kernels::tests::kernel(&format!("{release}-cloud-amd64")));
        let modules = vec![None; kernels.len()];
        let all = jobs(&kernels, &modules, scenarios_of);
        assert_eq!(all.len(), 3 + 2 * LACKING.len());
        assert!(all[..3].iter().all(|job| job.scenario == USUAL));
        let with_libvirt: Vec<&str> = all
            .iter()
            .filter(|job| job.libvirt)
            .map(|job| job.kernel.release.as_str())
            .collect();
        assert_eq!(with_libvirt, ["7.3.4+deb13-cloud-amd64"]);
    }
}
