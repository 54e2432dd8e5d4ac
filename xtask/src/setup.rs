//! `cargo xtask setup`: find what compiles BPF, get what is missing.

use anyhow::Result;

use crate::{
    bpf_toolchain::{self, record::Record},
    steps::Steps,
    workspace::Workspace,
};

/// After this, plain `cargo build`, `cargo test` and `cargo clippy` work.
pub fn setup(workspace: &Workspace, steps: &mut Steps) -> Result<Record> {
    steps.run("what compiles BPF", || {
        let record = bpf_toolchain::ensure(workspace)?;
        let Record {
            kind,
            rustc,
            rustc_version,
            llvm_version,
            linker_dir,
            linker_version,
        } = &record;
        eprintln!(
            "rustc {rustc_version} ({kind}), LLVM {llvm_version}: {}",
            rustc.display()
        );
        eprintln!("bpf-linker {linker_version}: {}", linker_dir.display());
        Ok(record)
    })
}
