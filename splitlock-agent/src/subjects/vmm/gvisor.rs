//! gVisor's sandbox on its KVM platform.

use super::{Evidence, Told};

/// `runsc-sandbox FLAGS boot FLAGS ID`: the sandbox's id is the last argument (gVisor,
/// runsc/sandbox/sandbox.go, `createSandboxProcess`).
pub fn told(arguments: &[&[u8]]) -> Told {
    let boots = arguments.contains(&b"boot".as_slice());
    let id = arguments
        .iter()
        .rfind(|argument| !argument.is_empty())
        .filter(|id| boots && !id.starts_with(b"-"));
    Told {
        name: id.map(|id| (id.to_vec(), Evidence::CommandLine)),
        uuid: None,
    }
}
