//! libvirt: its daemon with the driver for QEMU, and `virsh`, from Debian's packages.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    archive::Archive,
    qemu::{self, LIBRARIES, Qemu, SUITE},
};

/// The package that is all about QEMU; its version is that of the others too.
const DRIVER: &str = "libvirt-daemon-driver-qemu";
/// With a QEMU and libraries of the same release. Of what takes an init's part, the smallest: nothing
/// of it is used.
const PACKAGES: [&str; 6] = [
    DRIVER,
    "libvirt-daemon",
    "libvirt-clients",
    "qemu-system-x86",
    "sysvinit-core",
    "systemd-standalone-sysusers",
];
/// What it knows of CPUs, at this path wherever it is.
const CPU_MAP: &str = "/usr/share/libvirt/cpu_map";

/// An unpacked libvirt, with its QEMU.
pub struct Libvirt {
    root: PathBuf,
    qemu: Qemu,
}

impl Libvirt {
    /// Takes the one that was unpacked before, else downloads it (46 MB).
    pub fn get(archive: &Archive, folder: &Path) -> Result<Self> {
        let version = archive.package_of(DRIVER, SUITE)?.version;
        let root = folder.join(version);
        if !root.exists() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            archive.unpack_with_dependencies(&PACKAGES, SUITE, &root)?;
        }
        let qemu = Qemu::Unpacked(root.clone());
        Ok(Self { root, qemu })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What a machine needs to run it.
    pub fn files(&self) -> Result<Files> {
        let daemon = self.root.join("usr/sbin/libvirtd");
        let virsh = self.root.join("usr/bin/virsh");
        let drivers = self.root.join(LIBRARIES).join("libvirt/connection-driver");
        let driver = drivers.join("libvirt_driver_qemu.so");
        let mut qemu = self.qemu.files()?;
        for file in [&daemon, &virsh, &driver] {
            qemu.libraries.extend(self.qemu.libraries_of(file)?);
        }
        qemu.libraries.sort();
        qemu.libraries.dedup();
        let cpu_map = self.root.join(CPU_MAP.trim_start_matches('/'));
        let cpu_map = fs::read_dir(&cpu_map)
            .with_context(|| format!("cannot list {}", cpu_map.display()))?
            .map(|entry| {
                let entry = entry.context("cannot list the CPUs that libvirt knows")?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((format!("{CPU_MAP}/{name}"), entry.path()))
            })
            .collect::<Result<_>>()?;
        Ok(Files {
            daemon,
            virsh,
            driver,
            cpu_map,
            qemu,
        })
    }
}

/// The files of a libvirt.
pub struct Files {
    /// The daemon of all drivers that are there.
    pub daemon: PathBuf,
    /// `virsh`.
    pub virsh: PathBuf,
    /// The driver, which the daemon loads.
    pub driver: PathBuf,
    /// What it knows of CPUs: paths, and where they are now.
    pub cpu_map: Vec<(String, PathBuf)>,
    /// A QEMU, with the libraries of them all.
    pub qemu: qemu::Files,
}
