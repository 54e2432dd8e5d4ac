//! KVM: its modules, its device, and what it can tell of guests' bus locks.

use std::{fs, path::Path};

use kvm_ioctls::Kvm as Device;

use super::super::facts::Kvm;

/// `KVM_CAP_X86_BUS_LOCK_EXIT`, include/uapi/linux/kvm.h; its value is the set of modes that a VMM
/// may choose from.
const BUS_LOCK_EXIT: u64 = 193;
/// `KVM_BUS_LOCK_DETECTION_EXIT`.
const EXIT_MODE: i32 = 2;

pub fn look() -> Kvm {
    let modules = modules(Path::new("/sys/module"));
    let device = fs::exists("/dev/kvm").unwrap_or(false);
    // Opening the node without the module loads it, and nothing here may change the host.
    let bus_lock_exits = if modules.is_empty() {
        None
    } else {
        Device::new()
            .ok()
            .map(|kvm| kvm.check_extension_raw(BUS_LOCK_EXIT) & EXIT_MODE != 0)
    };
    Kvm {
        device,
        modules,
        bus_lock_exits,
    }
}

/// Those that run guests, loaded or built in; `kvm` itself is what they share.
fn modules(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("kvm_"))
        .collect();
    found.sort();
    found
}
