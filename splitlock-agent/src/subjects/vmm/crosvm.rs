//! crosvm's command line.

use super::{
    Evidence, Told,
    arguments::{key, last_value, values},
    cloud_hypervisor::by_socket,
    uuid,
};

/// `crosvm run --name NAME`, else the control socket `-s`, `--socket`; `--smbios uuid=`
/// (crosvm, src/crosvm/cmdline.rs, `RunCommand`).
pub fn told(arguments: &[&[u8]]) -> Told {
    let name = last_value(arguments, &["--name"])
        .filter(|name| !name.is_empty())
        .map(|name| (name.to_vec(), Evidence::CommandLine))
        .or_else(|| by_socket(last_value(arguments, &["--socket", "-s"])?));
    let uuid = values(arguments, &["--smbios"])
        .rev()
        .find_map(|smbios| uuid::normalise(key(smbios, "uuid")?));
    Told { name, uuid }
}
