//! The bpf-linker that fits a compiler's LLVM, built once into the target folder.

use std::{
    env,
    ffi::OsString,
    fs, io,
    ops::RangeInclusive,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{compiler::Compiler, rustc::LibLlvm};
use crate::{
    command,
    workspace::{Workspace, write_if_changed},
};

/// The version that is built.
pub const VERSION: &str = "0.13.0";
/// The major versions of LLVM that it can be built for: its features `llvm-21` to `llvm-23`.
pub const LLVM_MAJORS: RangeInclusive<u32> = 21..=23;

/// Returns the folder of the bpf-linker for this compiler, after building it if it is not there.
pub fn ensure(workspace: &Workspace, compiler: &Compiler) -> Result<PathBuf> {
    let root = workspace.bpf_toolchain_dir();
    let bin = root.join("bin");
    let stamp = root.join("bpf-linker.stamp");
    let wanted = describe(compiler)?;
    let built = fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == wanted);
    // It starts only if the loader finds its LLVM, which an upgrade may have taken away.
    if built && command::output(Command::new(bin.join("bpf-linker")).arg("--version")).is_ok() {
        return Ok(bin);
    }
    build(workspace, compiler, &root)?;
    write_if_changed(&stamp, &wanted)?;
    Ok(bin)
}

/// Everything that makes another build necessary when it changes.
fn describe(compiler: &Compiler) -> Result<String> {
    let Compiler {
        kind: _,
        rustc: _,
        version,
        llvm: LibLlvm { soname, file },
    } = compiler;
    let major = version.llvm_major()?;
    let file = file.display();
    Ok(format!(
        "bpf-linker {VERSION}, LLVM {major}, {soname}, {file}\n"
    ))
}

fn build(workspace: &Workspace, compiler: &Compiler, root: &Path) -> Result<()> {
    let llvm_major = compiler.version.llvm_major()?;
    eprintln!(
        "Building bpf-linker {VERSION} with LLVM {llvm_major} for {}: about a minute, once.",
        compiler.rustc.display()
    );
    let prefix = link_llvm(root, &compiler.llvm)?;
    let scratch = root.join("bpf-linker-build");
    let mut install = workspace.cargo();
    install
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm_major}"),
        ])
        .arg("--root")
        .arg(root)
        .arg("--target-dir")
        .arg(&scratch)
        .env("LLVM_PREFIX", &prefix)
        // Cargo would advise to have this folder on PATH; nobody needs to.
        .env("PATH", path_with(&root.join("bin"))?)
        // Its own setting is full debug information, which takes time and space.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    // Flags for the agent, such as a static C library, are not for a program that runs here.
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        install.env_remove(flags);
    }
    command::run(&mut install)?;
    // 200 MB that nothing needs any more; if they stay, nothing breaks.
    let _ = fs::remove_dir_all(&scratch);
    Ok(())
}

fn path_with(folder: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([folder.to_owned()]);
    env::join_paths(folders).context("PATH")
}

/// Makes a prefix for bpf-linker's build script, which looks for `lib/libLLVM.so`
/// and makes that folder the run path: so the library must also be there under
/// the name that the loader will ask for.
fn link_llvm(root: &Path, llvm: &LibLlvm) -> Result<PathBuf> {
    let prefix = root.join("llvm");
    match fs::remove_dir_all(&prefix) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", prefix.display()));
        }
        _ => {}
    }
    let lib = prefix.join("lib");
    fs::create_dir_all(&lib).with_context(|| format!("cannot create {}", lib.display()))?;
    let LibLlvm { soname, file } = llvm;
    for name in ["libLLVM.so", soname] {
        let link = lib.join(name);
        symlink(file, &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(prefix)
}
