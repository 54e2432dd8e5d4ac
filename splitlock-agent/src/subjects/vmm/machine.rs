//! A VM's name in its cgroup, where the command line does not tell.

use crate::subjects::cgroup::{libvirt_domain, machine_name};

/// The guest's name in libvirt's, systemd-machined's or Proxmox's cgroups.
///
/// libvirt's is the domain's name without what no host name may hold, cut at 64 bytes.
pub fn name(cgroup: &str) -> Option<Vec<u8>> {
    let mut components = cgroup.as_bytes().rsplit(|byte| *byte == b'/');
    let own = components.next()?;
    let parent = components.next().unwrap_or_default();
    let machine = match own.strip_suffix(b".libvirt-qemu") {
        Some(machine) => machine.to_vec(),
        None if parent == b"qemu.slice" => {
            // PVE::QemuServer starts a guest in the scope of its number.
            let vmid = own.strip_suffix(b".scope")?;
            let is_number = !vmid.is_empty() && vmid.iter().all(u8::is_ascii_digit);
            return is_number.then(|| vmid.to_vec());
        }
        None => machine_name(own)?,
    };
    let domain = [b"qemu-".as_slice(), b"ch-"]
        .into_iter()
        .find_map(|driver| libvirt_domain(&machine, driver));
    let name = domain.unwrap_or(&machine);
    (!name.is_empty()).then(|| name.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cgroup: &str) -> Option<String> {
        Some(String::from_utf8(name(cgroup)?).unwrap())
    }

    #[test]
    fn names_in_cgroups() {
        let scope = "/machine.slice/machine-qemu\\x2d12\\x2dweb\\x2d1.scope";
        assert_eq!(of(scope).as_deref(), Some("web-1"));
        assert_eq!(
            of("/machine/qemu-1-web1.libvirt-qemu").as_deref(),
            Some("web1")
        );
        assert_eq!(
            of("/machine.slice/machine-box.scope").as_deref(),
            Some("box")
        );
        for machine in [
            "qemu-embed-12345678-3-a-1",
            "qemu-alice-3-a-1",
            "qemu-3-a-1",
        ] {
            let cgroup = format!("/machine/{machine}.libvirt-qemu");
            assert_eq!(of(&cgroup).as_deref(), Some("a-1"), "{machine}");
        }
        assert_eq!(of("/qemu.slice/100.scope").as_deref(), Some("100"));
        assert_eq!(of("/qemu.slice/x.scope"), None);
        assert_eq!(of("/qemu.slice/.scope"), None);
        assert_eq!(of("/machine/.libvirt-qemu"), None);
        assert_eq!(of("/system.slice/a.service"), None);
        assert_eq!(of(""), None);
    }
}
