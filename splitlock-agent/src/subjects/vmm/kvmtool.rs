//! kvmtool's command line.

use super::{Evidence, Told, arguments::last_value};

/// `lkvm run --name NAME` or `-n NAME` (kvmtool, builtin-run.c, `BUILD_OPTIONS`). Without it the
/// guest is `guest-PID`, in the pid namespace of whoever started it: no name.
pub fn told(arguments: &[&[u8]]) -> Told {
    Told {
        name: last_value(arguments, &["--name", "-n"])
            .map(|name| (name.to_vec(), Evidence::CommandLine)),
        uuid: None,
    }
}
