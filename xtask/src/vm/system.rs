//! A Debian that systemd runs, as an initramfs: packages are unpacked and written into dpkg's database,
//! as nothing here could run their scripts.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{archive::Archive, initramfs::Cpio, qemu::SUITE};
use crate::command;

/// What installing, running and purging a service takes, and its test.
const PACKAGES: [&str; 25] = [
    "base-files",
    "base-passwd",
    "bash",
    "bpftool",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "kmod",
    "libc-bin",
    "mawk",
    "mount",
    "passwd",
    "perl-base",
    "procps",
    "sed",
    "systemd-sysv",
    "tar",
    "util-linux",
];
/// What no machine needs that lives for a minute.
const LEFT_OUT: [&str; 9] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/perl5/Debconf",
    "usr/lib/x86_64-linux-gnu/perl-base/unicore",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/udev",
    "usr/share/lintian",
];
/// Units that have nothing to do here, or nobody to talk to.
const MASKED: [&str; 8] = [
    "getty.target",
    "serial-getty@ttyS0.service",
    "systemd-logind.service",
    "systemd-firstboot.service",
    "systemd-networkd.service",
    "systemd-timesyncd.service",
    "systemd-hwdb-update.service",
    "ldconfig.service",
];

/// The unpacked system.
pub struct System {
    root: PathBuf,
}

impl System {
    /// Takes the one that was unpacked before, else downloads it (35 MB).
    pub fn get(archive: &Archive, folder: &Path) -> Result<Self> {
        if !folder.exists() {
            eprintln!("Downloading a Debian with systemd; it is unpacked in the target folder.");
            archive.unpack_registered(&PACKAGES, SUITE, folder)?;
        }
        Ok(Self {
            root: folder.to_owned(),
        })
    }

    /// Puts it into an initramfs.
    pub fn add_to(&self, cpio: &mut Cpio) -> Result<()> {
        add_folder(cpio, &self.root, &self.root, "")?;
        for folder in ["/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/home"] {
            // Some are a package's too; the kernel takes the last.
            cpio.folder(folder)?;
        }
        let masters = self.root.join("usr/share/base-passwd");
        for (path, file) in [
            ("/etc/passwd", "passwd.master"),
            ("/etc/group", "group.master"),
        ] {
            let file = masters.join(file);
            let text =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            cpio.file(path, &text)?;
        }
        for (path, text) in [
            ("/etc/shadow", ""),
            ("/etc/gshadow", ""),
            ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("/etc/hostname", "rig\n"),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\n"),
        ] {
            cpio.file(path, text.as_bytes())?;
        }
        for unit in MASKED {
            cpio.link(&format!("/etc/systemd/system/{unit}"), "/dev/null")?;
        }
        cpio.link("/init", "/usr/lib/systemd/systemd")
    }
}

/// Adds what is below a folder, all of it root's.
pub fn add_folder(cpio: &mut Cpio, root: &Path, folder: &Path, at: &str) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        let below = path.strip_prefix(root).context("it is below")?;
        if LEFT_OUT.iter().any(|left_out| below == Path::new(left_out)) {
            continue;
        }
        let name = format!("{at}/{}", below.display());
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            cpio.folder(&name)?;
            add_folder(cpio, root, &path, at)?;
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path)?;
            cpio.link(&name, &target.to_string_lossy())?;
        } else if metadata.is_file() {
            let content =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            match metadata.mode() & 0o111 {
                0 => cpio.file(&name, &content)?,
                _ => cpio.program(&name, &content)?,
            }
        }
    }
    Ok(())
}

/// Writes packages into the database of a dpkg, as installed.
pub fn register(debs: &[PathBuf], root: &Path) -> Result<()> {
    let folder = root.join("var/lib/dpkg");
    for part in ["info", "updates", "triggers"] {
        let part = folder.join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    }
    let mut status = String::new();
    for deb in debs {
        let control = command::output(Command::new("dpkg-deb").arg("--field").arg(deb))?;
        let name = field(&control, "Package")?;
        status += &installed(&control)?;
        let list = match field(&control, "Multi-Arch") {
            Ok("same") => format!("{name}:{}.list", field(&control, "Architecture")?),
            _ => format!("{name}.list"),
        };
        fs::write(folder.join("info").join(list), "/.\n").context("dpkg's list of files")?;
    }
    if status.is_empty() {
        bail!("there are no packages");
    }
    fs::write(folder.join("info/format"), "1\n").context("dpkg's format")?;
    let file = folder.join("status");
    fs::write(&file, status).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).context("dpkg's status")
}

fn installed(control: &str) -> Result<String> {
    let control = control.trim_end();
    let (first, rest) = control.split_once('\n').context("a package has fields")?;
    Ok(format!("{first}\nStatus: install ok installed\n{rest}\n\n"))
}

fn field<'a>(control: &'a str, name: &str) -> Result<&'a str> {
    let value = control
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.with_context(|| format!("a package without {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_written_as_installed() {
        let control = "Package: dash\nVersion: 0.5\nDescription: shell\n more\n";
        assert_eq!(
            installed(control).unwrap(),
            "Package: dash\nStatus: install ok installed\nVersion: 0.5\nDescription: shell\n more\n\n"
        );
        assert_eq!(field(control, "Version").unwrap(), "0.5");
        assert!(field(control, "Multi-Arch").is_err());
    }
}
