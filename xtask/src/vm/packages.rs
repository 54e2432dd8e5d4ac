//! The package on a machine that systemd runs: installed, used, upgraded, purged.

use std::{
    fs,
    path::Path,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    archive::Archive,
    boot::Machine,
    initramfs::{Cpio, decompressed},
    kernels::{self, Kernel},
    qemu::Qemu,
    scenarios::PACKAGES,
    system::{self, System},
};
use crate::{dist::Made, steps::Steps};

/// What the test tells of, in this order.
const STEPS: [&str; 14] = [
    "nothing before",
    "install",
    "metrics",
    "policy",
    "restart",
    "crash",
    "watchdog",
    "home",
    "image",
    "upgrade",
    "remove",
    "purge",
    "install again",
    "purge again",
];
/// All of it: a minute on an idle machine.
const IN_ALL: Duration = Duration::from_secs(600);
const CPUS: usize = 2;
/// Where the test finds what it needs.
const FOLDER: &str = "/rig/packages";
const SCRIPT: &str = include_str!("../../rig/packages/test.sh");
const UNIT: &str = include_str!("../../rig/packages/test.service");
/// Systemd needs them of the kernel, where they are modules.
const MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];

/// Boots a machine and has it try the packages.
pub fn test(
    folder: &Path,
    steps: &mut Steps,
    archive: &Archive,
    kernel: &str,
    made: &Made,
) -> Result<()> {
    let (kernel, qemu, system) = steps.run("get a machine with systemd", || {
        let kernel = kernels::get(archive, &[kernel.to_owned()], &folder.join("kernels"))?
            .pop()
            .context("a kernel")?;
        eprintln!("{}", kernel.release);
        let qemu = Qemu::get(archive, &folder.join("qemu"))?;
        let system = System::get(archive, &folder.join("system"))?;
        Ok((kernel, qemu, system))
    })?;
    steps.run("install, upgrade and purge the package", || {
        let boots = folder.join("boots");
        fs::create_dir_all(&boots).with_context(|| format!("cannot create {}", boots.display()))?;
        let initramfs = boots.join("packages.cpio");
        write(&initramfs, &system, &kernel, made)?;
        let machine = Machine {
            qemu: &qemu,
            kernel: &kernel,
            scenario: &PACKAGES,
            initramfs: &initramfs,
            log: boots.join("packages.log"),
            cpus: CPUS,
            counts_instructions: false,
            patience: 1,
            agent_port: None,
        };
        let result = watch(&machine);
        let _ = fs::remove_file(&initramfs);
        result
    })
}

fn write(file: &Path, system: &System, kernel: &Kernel, made: &Made) -> Result<()> {
    let mut cpio = Cpio::default();
    system.add_to(&mut cpio)?;
    for folder in [
        "/rig",
        FOLDER,
        "/etc/systemd/system/multi-user.target.wants",
    ] {
        cpio.folder(folder)?;
    }
    for (name, deb) in [
        ("splitlock-agent.deb", &made.deb),
        ("next.deb", &made.next_deb),
    ] {
        let content = fs::read(deb).with_context(|| format!("cannot read {}", deb.display()))?;
        cpio.file(&format!("{FOLDER}/{name}"), &content)?;
    }
    let at = format!("{FOLDER}/image");
    cpio.folder(&at)?;
    system::add_folder(&mut cpio, &made.image_root, &made.image_root, &at)?;
    let mut modules = Vec::new();
    for name in MODULES {
        if let Some(path) = kernel.module(name) {
            cpio.file(&format!("{FOLDER}/{name}.ko"), &decompressed(&path)?)?;
            modules.push(format!("{name}.ko"));
        }
    }
    let daemon_set = made.manifests.join("daemonset.yaml");
    let daemon_set = fs::read_to_string(&daemon_set)
        .with_context(|| format!("cannot read {}", daemon_set.display()))?;
    let environment = format!(
        "MODULES='{}'\nCAPABILITIES='{}'\n",
        modules.join(" "),
        capabilities(&daemon_set)?.join(" ")
    );
    cpio.file(&format!("{FOLDER}/environment"), environment.as_bytes())?;
    cpio.program(&format!("{FOLDER}/test.sh"), SCRIPT.as_bytes())?;
    cpio.file("/etc/systemd/system/test.service", UNIT.as_bytes())?;
    cpio.link(
        "/etc/systemd/system/multi-user.target.wants/test.service",
        "/etc/systemd/system/test.service",
    )?;
    fs::write(file, cpio.finish()?).with_context(|| format!("cannot write {}", file.display()))
}

/// Those that the DaemonSet adds, as systemd calls them.
fn capabilities(daemon_set: &str) -> Result<Vec<String>> {
    let (_, list) = daemon_set
        .split_once("              add:\n")
        .context("the DaemonSet adds no capabilities")?;
    let capabilities: Vec<String> = list
        .lines()
        .map_while(|line| line.trim().strip_prefix("- "))
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| format!("CAP_{name}"))
        .collect();
    if capabilities.is_empty() {
        bail!("the DaemonSet adds no capabilities");
    }
    Ok(capabilities)
}

fn watch(machine: &Machine) -> Result<()> {
    let start = Instant::now();
    let running = machine.start()?;
    let mut done = Vec::new();
    let mut failed = Vec::new();
    loop {
        let left = IN_ALL.saturating_sub(start.elapsed());
        let line = match running.reports.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "it hung after {:?}; see {}",
                    done.last(),
                    machine.log.display()
                )
            }
        };
        eprintln!("[{:4.0} s] {line}", start.elapsed().as_secs_f64());
        if let Some(step) = line.strip_prefix("ok ") {
            done.push(step.to_owned());
        } else if let Some(failure) = line.strip_prefix("failed ") {
            failed.push(failure.to_owned());
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    if done != STEPS {
        bail!("only {done:?} of {STEPS:?}; see {}", machine.log.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_the_script_is_waited_for() {
        let told: Vec<&str> = SCRIPT
            .lines()
            .filter_map(|line| line.strip_prefix("step "))
            .filter_map(|line| match line.strip_prefix('\'') {
                Some(quoted) => quoted.split('\'').next(),
                None => line.split(' ').next(),
            })
            .collect();
        assert_eq!(told, STEPS);
    }

    #[test]
    fn the_image_is_given_what_the_manifest_gives() {
        let found = capabilities(include_str!("../../../packaging/kubernetes/daemonset.yaml"));
        let found = found.unwrap();
        assert_eq!(found.first().map(String::as_str), Some("CAP_BPF"));
        assert_eq!(found.last().map(String::as_str), Some("CAP_SETPCAP"));
    }
}
