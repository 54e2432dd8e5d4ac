//! What compiles BPF: a rustc that knows the BPF target's `core`, and a bpf-linker
//! with the same LLVM.
//!
//! Two kinds of rustc will do: rustup's nightly with rust-src, and a
//! distribution's that ships a compiled `core` for [`TARGET`]. What is found is
//! written down in a [`Record`], which the agent's build script obeys, so that
//! plain `cargo build` works afterwards.

use std::fs;

use anyhow::{Context as _, Result, anyhow};

mod compiler;
mod install;
mod linker;
pub mod lints;
pub mod record;
mod rustc;

use self::{compiler::Compiler, record::Record, rustc::RustcVersion};
use crate::workspace::{Workspace, write_if_changed};

/// The target of the BPF programs. They run on the machine that they are built
/// for, and the agent is for x86 hosts only: little endian.
pub const TARGET: &str = "bpfel-unknown-none";

/// Finds what compiles BPF, gets what is missing, and writes it down.
pub fn ensure(workspace: &Workspace) -> Result<Record> {
    let compiler = match compiler::find() {
        Ok(compiler) => compiler,
        Err(unusable) => {
            install::install(unusable)?;
            compiler::find()
                .map_err(|unusable| anyhow!("what was installed compiles no BPF:\n{unusable}"))?
        }
    };
    let folder = workspace.bpf_toolchain_dir();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let linker_dir = linker::ensure(workspace, &compiler)?;
    let Compiler {
        kind,
        rustc,
        version: RustcVersion { release, llvm },
        llvm: _,
    } = compiler;
    let record = Record {
        kind,
        rustc,
        rustc_version: release,
        llvm_version: llvm,
        linker_dir,
        linker_version: linker::VERSION.to_owned(),
    };
    write_if_changed(&folder.join(record::FILE), &record.to_string())?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::{record::Kind, *};

    fn example() -> Record {
        Record {
            kind: Kind::Distribution,
            rustc: "/usr/bin/rustc".into(),
            rustc_version: "1.96.0".to_owned(),
            llvm_version: "22.1.8".to_owned(),
            linker_dir: "/a b/target/bpf-toolchain/bin".into(),
            linker_version: "0.13.0".to_owned(),
        }
    }

    #[test]
    fn a_record_survives_writing_and_reading() {
        let nightly = Record {
            kind: Kind::Nightly,
            ..example()
        };
        for record in [example(), nightly] {
            assert_eq!(record.to_string().parse::<Record>().unwrap(), record);
        }
    }

    #[test]
    fn a_record_that_lacks_a_line_is_refused_by_name() {
        let text = example().to_string().replace("linker-dir=", "linkerdir=");
        let error = text.parse::<Record>().unwrap_err().to_string();
        assert!(error.contains("linker-dir"), "{error}");

        let text = example().to_string().replace("=distribution", "=prebuilt");
        let error = text.parse::<Record>().unwrap_err().to_string();
        assert!(error.contains("prebuilt"), "{error}");
    }
}
