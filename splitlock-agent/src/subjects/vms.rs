//! Processes that have a VM: by their open files.

use std::{fs, io, os::unix::ffi::OsStrExt};

use super::{SubjectId, paths::Paths, process};

/// Open files of a process that are looked at. A VMM opens its VM and vCPUs early, and `/proc` lists
/// files by number.
const FILES: usize = 16 << 10;

/// What a process's open files tell of VMs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvmFiles {
    /// Descriptors of VMs; several if the process runs several, or has one twice.
    pub vms: usize,
    /// Numbers of the vCPUs, in order, each once.
    pub vcpus: Vec<u32>,
}

/// The VMs and vCPUs among a process's open files: links to `anon_inode:kvm-vm` and
/// `anon_inode:kvm-vcpu:N` (`kvm_dev_ioctl_create_vm`, `create_vcpu_fd`; virt/kvm/kvm_main.c, 4.18+
/// with the number).
///
/// # Errors
/// The process is gone, or its files cannot be listed (CAP_SYS_PTRACE).
pub fn kvm_files(paths: &Paths, pid: u32) -> io::Result<KvmFiles> {
    let mut files = KvmFiles::default();
    for entry in fs::read_dir(paths.process(pid, "fd"))?.take(FILES) {
        // A file that was closed since has no link any more.
        let Ok(link) = entry.and_then(|entry| fs::read_link(entry.path())) else {
            continue;
        };
        match kvm_file(link.as_os_str().as_bytes()) {
            Some(KvmFile::Vm) => files.vms += 1,
            Some(KvmFile::Vcpu(number)) => files.vcpus.extend(number),
            None => {}
        }
    }
    files.vcpus.sort_unstable();
    files.vcpus.dedup();
    Ok(files)
}

/// All processes that have a VM open now, the oldest first: the VMs that were there before the
/// agent. Those that vanish or cannot be looked at are passed over.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn vms(paths: &Paths) -> io::Result<Vec<SubjectId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(&paths.procfs)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The start time before and after, so that it is of the process that has the files.
        let before = process::start_ticks(paths, pid).ok();
        let has_vm = has_vm(paths, pid);
        if let Some(start_ticks) = before
            && has_vm
            && process::start_ticks(paths, pid).ok() == before
        {
            found.push(SubjectId { pid, start_ticks });
        }
    }
    found.sort_unstable_by_key(|subject| (subject.start_ticks, subject.pid));
    Ok(found)
}

/// Whether a process has a VM open. One whose first thread has ended is asked by another thread.
pub fn has_vm(paths: &Paths, pid: u32) -> bool {
    process::living_thread(paths, pid)
        .and_then(|tid| kvm_files(paths, tid).ok())
        .is_some_and(|files| files.vms > 0)
}

#[derive(Debug, PartialEq, Eq)]
enum KvmFile {
    Vm,
    Vcpu(Option<u32>),
}

/// A file cannot be named so: its link begins with a `/`, a socket's with `socket:`.
fn kvm_file(link: &[u8]) -> Option<KvmFile> {
    let kind = link.strip_prefix(b"anon_inode:")?;
    if kind == b"kvm-vm" {
        return Some(KvmFile::Vm);
    }
    let number = kind.strip_prefix(b"kvm-vcpu")?;
    let number = match number.strip_prefix(b":") {
        Some(number) => std::str::from_utf8(number).ok()?.parse().ok(),
        None if number.is_empty() => None,
        None => return None,
    };
    Some(KvmFile::Vcpu(number))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use kvm_ioctls::Kvm;

    use super::*;

    #[test]
    fn links() {
        assert_eq!(kvm_file(b"anon_inode:kvm-vm"), Some(KvmFile::Vm));
        assert_eq!(
            kvm_file(b"anon_inode:kvm-vcpu:12"),
            Some(KvmFile::Vcpu(Some(12)))
        );
        assert_eq!(kvm_file(b"anon_inode:kvm-vcpu"), Some(KvmFile::Vcpu(None)));
        for other in [
            "/anon_inode:kvm-vm",
            "anon_inode:kvm-vcpu-stats:0",
            "/dev/kvm",
            "",
        ] {
            assert_eq!(kvm_file(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_tree_of_processes() {
        let root = std::env::temp_dir().join(format!("splitlock-fds-{}", std::process::id()));
        let paths = Paths {
            procfs: root.clone(),
            ..Paths::default()
        };
        for (pid, start, link) in [
            (30, 7, "anon_inode:kvm-vm"),
            (20, 9, "anon_inode:kvm-vm"),
            (10, 5, "/dev/null"),
        ] {
            fs::create_dir_all(paths.process(pid, "fd")).unwrap();
            let stat = format!("{pid} (a) S 1 1 1 0 -1 0 1 0 0 0 1 1 0 0 20 0 1 0 {start} 1 1\n");
            fs::write(paths.process(pid, "stat"), stat).unwrap();
            symlink(link, paths.process(pid, "fd/3")).unwrap();
            symlink("anon_inode:kvm-vcpu:1", paths.process(pid, "fd/4")).unwrap();
            symlink("anon_inode:kvm-vcpu:0", paths.process(pid, "fd/5")).unwrap();
        }
        let found = vms(&paths);
        let files = kvm_files(&paths, 20);
        fs::remove_dir_all(root).unwrap();
        let oldest_first =
            [(30, 7), (20, 9)].map(|(pid, start_ticks)| SubjectId { pid, start_ticks });
        assert_eq!(found.unwrap(), oldest_first);
        let expected = KvmFiles {
            vms: 1,
            vcpus: vec![0, 1],
        };
        assert_eq!(files.unwrap(), expected);
        assert!(kvm_files(&paths, 20).is_err());
    }

    #[test]
    fn a_real_vm() {
        let paths = Paths::default();
        let pid = std::process::id();
        let vm = match Kvm::new().and_then(|kvm| kvm.create_vm()) {
            Ok(vm) => vm,
            Err(error) => {
                eprintln!("skipped: /dev/kvm: {error}");
                return;
            }
        };
        let vcpu = vm.create_vcpu(3).unwrap();
        let files = kvm_files(&paths, pid).unwrap();
        // Tests run side by side in one process, and another can have a VM too.
        assert!(files.vms >= 1, "{files:?}");
        assert!(files.vcpus.contains(&3), "{files:?}");
        assert!(
            vms(&paths)
                .unwrap()
                .iter()
                .any(|subject| subject.pid == pid)
        );
        drop((vcpu, vm));
    }

    #[test]
    fn fuzz_kvm_file() {
        bolero::check!(name = "kvm_file").for_each(|link: &[u8]| {
            let found = kvm_file(link);
            assert!(found.is_none() || link.starts_with(b"anon_inode:kvm-v"));
            // No file of a tenant's is taken for one.
            assert_eq!(kvm_file(&[b"/", link].concat()), None);
        });
    }
}
