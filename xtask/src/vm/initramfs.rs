//! The initramfs of one boot.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use cpio::{NewcBuilder, newc::trailer};

use super::{
    kernels::Kernel,
    libvirt,
    programs::Programs,
    protocol::{AGENT, BENCHMARK, Hypervisor, MODULES, Module, ORDER, Order, TESTS},
    qemu::{self, LOADER},
    scenarios::{Scenario, Tests},
};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// The path of the QEMU that is a VMM in the kernel under test.
const QEMU: &str = "/rig/qemu/qemu-system-x86_64";
/// Its firmware, beside it: the tests look for it there.
const QEMU_FIRMWARE: &str = "/rig/qemu/bios-256k.bin";
/// The folder of its libraries, beside it: the tests look for them there.
const QEMU_LIBRARIES: &str = "/rig/qemu/lib";

/// The folder of libvirt's programs, and of the driver: the tests look for them there.
const LIBVIRT: &str = "/rig/libvirt";
/// Whom libvirt looks up, and how it is set.
const LIBVIRT_SETTINGS: [(&str, &str); 5] = [
    ("/etc/passwd", include_str!("../../rig/libvirt/passwd")),
    ("/etc/group", include_str!("../../rig/libvirt/group")),
    (
        "/etc/nsswitch.conf",
        include_str!("../../rig/libvirt/nsswitch.conf"),
    ),
    (
        "/etc/libvirt/qemu.conf",
        include_str!("../../rig/libvirt/qemu.conf"),
    ),
    (
        "/etc/libvirt/libvirtd.conf",
        include_str!("../../rig/libvirt/libvirtd.conf"),
    ),
];

/// What KVM needs, in the order of loading; with nested SVM only the last could be another.
const KVM_MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];
/// What a network card of QEMU's needs, in the order of loading. The newer the kernel, the less of it
/// is a module.
const NETWORK_MODULES: [&str; 8] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];
/// The tests read it; see `crowds.rs` there.
const CROWD: &str = "SPLITLOCK_CROWD";
/// Tells the tests that they may change the machine, and where its modules are.
const CHANGING: &str = "SPLITLOCK_CHANGING_MACHINE";

/// A VMM that the tests are given.
pub enum Vmm {
    /// QEMU.
    Qemu(qemu::Files),
    /// libvirt, with its QEMU.
    Libvirt(libvirt::Files),
}

/// What is run.
#[derive(Clone, Copy)]
pub enum Work<'a> {
    /// The agent, for its report, and with these arguments the tests, if the scenario has them.
    Tests(&'a [String]),
    /// The benchmark, in the place of everything else.
    Benchmark(&'a Benchmark),
    /// A hypervisor, in the place of everything else.
    Hypervisor(&'a Hypervisor),
}

/// The benchmark.
pub struct Benchmark {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// A cpio archive in the kernel's format, in memory.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        // The kernel would take entries with the same inode for links.
        self.entries += 1;
        let size = u32::try_from(content.len())
            .with_context(|| format!("{path} is too large for an initramfs"))?;
        let mut entry = NewcBuilder::new(path.trim_start_matches('/'))
            .ino(self.entries)
            .mode(mode)
            .write(&mut self.bytes, size);
        entry.write_all(content).context("writing to memory")?;
        entry.finish().context("writing to memory")?;
        Ok(())
    }

    /// Adds a folder.
    pub fn folder(&mut self, path: &str) -> Result<()> {
        self.add(path, FOLDER, b"")
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.add(path, FILE, content)
    }

    /// Adds a program.
    pub fn program(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.add(path, PROGRAM, content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, LINK, target.as_bytes())
    }

    /// The whole archive.
    pub fn finish(self) -> Result<Vec<u8>> {
        trailer(self.bytes).context("writing to memory")
    }
}

/// Writes the initramfs for one boot of a kernel.
pub fn write(
    file: &Path,
    kernel: &Kernel,
    programs: &Programs,
    trap_module: Option<&Path>,
    vmm: &Vmm,
    scenario: &Scenario,
    work: Work<'_>,
) -> Result<()> {
    let (chosen, benchmark, hypervisor) = match work {
        Work::Tests(args) => (args, None, None),
        Work::Benchmark(benchmark) => (&[][..], Some(benchmark), None),
        Work::Hypervisor(hypervisor) => (&[][..], None, Some(hypervisor)),
    };
    let test_args = match scenario.tests {
        Tests::Only(name) if chosen.is_empty() => vec![name.to_owned()],
        Tests::All | Tests::Only(_) => chosen.to_vec(),
        Tests::None => vec![],
    };
    let runs_tests = scenario.tests != Tests::None;
    // The tenants of a hypervisor are the test program's.
    let has_program = runs_tests || hypervisor.is_some();
    let has_all = scenario.tests == Tests::All;
    let Programs { agent, tests, init } = programs;
    let mut archive = Cpio::default();
    for folder in ["/rig", MODULES] {
        archive.add(folder, FOLDER, b"")?;
    }
    for (path, program) in [("/init", init), (AGENT, agent), (TESTS, tests)] {
        if path == TESTS && !has_program {
            continue;
        }
        archive.add(path, PROGRAM, &read(program)?)?;
    }
    if let Some(benchmark) = benchmark {
        archive.add(BENCHMARK, PROGRAM, &read(&benchmark.program)?)?;
    }
    let mut modules = Vec::new();
    let mut add_module = |name: &str, path: &Path, required: bool| -> Result<()> {
        let file = format!("{name}.ko");
        archive.add(&format!("{MODULES}/{file}"), FILE, &decompressed(path)?)?;
        modules.push(Module { file, required });
        Ok(())
    };
    let network = hypervisor.map_or(&[][..], |_| &NETWORK_MODULES);
    for name in KVM_MODULES.iter().chain(network) {
        if let Some(path) = kernel.module(name) {
            add_module(name, &path, true)?;
        }
    }
    if let Some(path) = trap_module {
        // Lockdown refuses a module without a signature.
        let required = has_all || scenario.changes || hypervisor.is_some();
        add_module("splitlock_trap", path, required)?;
    }
    let mut environment = BTreeMap::new();
    if scenario.changes {
        // The tests that do it load modules again.
        environment.insert(CHANGING.to_owned(), MODULES.to_owned());
    }
    if has_all {
        let qemu = match vmm {
            Vmm::Qemu(qemu) => qemu,
            Vmm::Libvirt(libvirt) => {
                add_libvirt(&mut archive, libvirt)?;
                environment.insert("SPLITLOCK_LIBVIRT".to_owned(), LIBVIRT.to_owned());
                &libvirt.qemu
            }
        };
        add_qemu(&mut archive, qemu)?;
        environment.insert("SPLITLOCK_QEMU".to_owned(), QEMU.to_owned());
        // How many processes crowd the agent: more take minutes.
        if let Ok(number) = env::var(CROWD) {
            environment.insert(CROWD.to_owned(), number);
        }
    }
    let order = Order {
        modules,
        tracefs: scenario.tracefs,
        hidden: scenario.hidden.iter().map(ToString::to_string).collect(),
        agent_args: Vec::new(),
        tests: runs_tests,
        test_args,
        benchmark: benchmark.map_or_else(Vec::new, |benchmark| benchmark.args.clone()),
        hypervisor: hypervisor.cloned(),
        environment,
    };
    let order = serde_json::to_vec(&order).context("an order is JSON")?;
    archive.add(ORDER, FILE, &order)?;
    fs::write(file, archive.finish()?).with_context(|| format!("cannot write {}", file.display()))
}

/// 70 MB, which the boot takes a second longer for.
fn add_qemu(archive: &mut Cpio, qemu: &qemu::Files) -> Result<()> {
    let qemu::Files {
        program,
        firmware,
        loader,
        libraries,
    } = qemu;
    for folder in ["/lib64", "/rig/qemu", QEMU_LIBRARIES] {
        archive.add(folder, FOLDER, b"")?;
    }
    archive.add(LOADER, PROGRAM, &read(loader)?)?;
    archive.add(QEMU, PROGRAM, &read(program)?)?;
    archive.add(QEMU_FIRMWARE, FILE, &read(firmware)?)?;
    for (name, file) in libraries {
        archive.add(&format!("{QEMU_LIBRARIES}/{name}"), FILE, &read(file)?)?;
    }
    Ok(())
}

/// Without its libraries, which are among QEMU's.
fn add_libvirt(archive: &mut Cpio, libvirt: &libvirt::Files) -> Result<()> {
    let libvirt::Files {
        daemon,
        virsh,
        driver,
        cpu_map,
        qemu: _,
    } = libvirt;
    let folders = [
        LIBVIRT,
        "/etc",
        "/etc/libvirt",
        "/usr",
        "/usr/share",
        "/usr/share/libvirt",
        "/usr/share/libvirt/cpu_map",
        "/var",
    ];
    for folder in folders {
        archive.add(folder, FOLDER, b"")?;
    }
    archive.add("/var/run", LINK, b"/run")?;
    for (name, program) in [("libvirtd", daemon), ("virsh", virsh)] {
        archive.add(&format!("{LIBVIRT}/{name}"), PROGRAM, &read(program)?)?;
    }
    let name = "libvirt_driver_qemu.so";
    archive.add(&format!("{LIBVIRT}/{name}"), FILE, &read(driver)?)?;
    for (path, file) in cpu_map {
        archive.add(path, FILE, &read(file)?)?;
    }
    for (path, text) in LIBVIRT_SETTINGS {
        archive.add(path, FILE, text.as_bytes())?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// A module's content as the kernel takes it: not every kernel can decompress modules itself.
pub fn decompressed(module: &Path) -> Result<Vec<u8>> {
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return read(module),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{}: unknown compression", module.display()),
    };
    let mut command = Command::new(program);
    command.args(["--decompress", "--stdout"]).arg(module);
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}: {}", output.status, stderr.trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        let mut archive = Cpio::default();
        archive.add("/rig", FOLDER, b"").unwrap();
        archive.add("/rig/a", FILE, b"content").unwrap();
        archive.add("/init", PROGRAM, b"12345678").unwrap();
        let mut rest = Cursor::new(archive.finish().unwrap());
        let mut found = Vec::new();
        loop {
            let reader = cpio::NewcReader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                break;
            }
            found.push((
                entry.name().to_owned(),
                entry.mode(),
                entry.file_size(),
                entry.ino(),
            ));
            rest = reader.finish().unwrap();
        }
        assert_eq!(
            found,
            [
                ("rig".to_owned(), FOLDER, 0, 1),
                ("rig/a".to_owned(), FILE, 7, 2),
                ("init".to_owned(), PROGRAM, 8, 3),
            ]
        );
    }
}
