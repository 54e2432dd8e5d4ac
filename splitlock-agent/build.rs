//! Compiles the BPF programs; the agent embeds the object from `OUT_DIR`.
//!
//! `cargo xtask setup` leaves a record of what compiles BPF on this machine, and
//! this script obeys it. Without a record it takes what aya's own projects take:
//! rustup's nightly with rust-src, and the bpf-linker on PATH.
//!
//! The script starts itself once more to do the work. The second process has the
//! environment that `aya_build` must see, and its output can be sorted: aya-build
//! prints a compiler's error as cargo's warnings, where nobody looks for it.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

// One definition of the record for its writer and its reader.
#[path = "../xtask/src/bpf_toolchain/record.rs"]
mod record;

mod build_info;
mod build_paths;

use self::record::{Kind, Record};

/// Set for the second process.
const COMPILE: &str = "SPLITLOCK_BUILD_COMPILE";
const PACKAGE: &str = "splitlock-ebpf";
/// Relative to this crate, where cargo starts build scripts.
const PACKAGE_DIR: &str = "../splitlock-ebpf";
const ADVICE: &str = "type `cargo xtask setup`, which finds or installs what compiles BPF";

fn main() -> ExitCode {
    let result = if env::var_os(COMPILE).is_some() {
        compile()
    } else {
        supervise()
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The second process: nothing but aya-build.
fn compile() -> Result<()> {
    let package = Package {
        name: PACKAGE,
        root_dir: PACKAGE_DIR,
        ..Default::default()
    };
    aya_build::build_ebpf([package], Toolchain::Nightly)
}

/// The first process: chooses the compiler, starts the second process and sorts what it says.
fn supervise() -> Result<()> {
    build_info::emit();
    // aya-build names its package; these go into the object too.
    for path in ["../splitlock-common", "../Cargo.toml", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let mut compile = Command::new(env::current_exe().context("cannot find this build script")?);
    compile
        .env(COMPILE, "1")
        // Only what the compiler has to say. (Cargo refuses quiet and verbose together.)
        .env("CARGO_TERM_QUIET", "true")
        .env_remove("CARGO_TERM_VERBOSE")
        .env("CARGO_TERM_COLOR", "never");
    // Debug, release and clippy builds have an OUT_DIR each; one folder for the
    // intermediate files of all compiles the programs once. And it must not be the
    // outer build's, which is locked, should the configuration part the two.
    let build_dir = match toolchain_dir(&out_dir) {
        Some(folder) => {
            let file = folder.join(record::FILE);
            println!("cargo:rerun-if-changed={}", file.display());
            obey(&read(&file)?, &out_dir, &mut compile)?;
            folder.join(record::BUILD_DIR)
        }
        None => {
            check_stock_toolchain()?;
            out_dir.join("bpf-build")
        }
    };
    compile.env("CARGO_BUILD_BUILD_DIR", build_dir);
    compile.env("RUSTC_WRAPPER", build_paths::wrapper(&out_dir)?);

    let output = compile
        .output()
        .with_context(|| format!("cannot start {compile:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        io::stdout().write_all(&output.stdout).context("stdout")?;
        return Ok(());
    }
    let said: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("cargo:warning="))
        .collect();
    bail!(
        "the BPF programs ({PACKAGE}) do not compile:\n\n{}\n{}",
        said.join("\n").trim_end(),
        String::from_utf8_lossy(&output.stderr).trim_end()
    )
}

/// The folder of the record, somewhere above `OUT_DIR`: cargo tells build scripts no target folder.
fn toolchain_dir(out_dir: &Path) -> Option<PathBuf> {
    out_dir
        .ancestors()
        .map(|folder| folder.join(record::FOLDER))
        .find(|folder| folder.join(record::FILE).is_file())
}

fn read(file: &Path) -> Result<Record> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let record: Record = text
        .parse()
        .with_context(|| format!("{}: {ADVICE}", file.display()))?;
    for program in [record.rustc.clone(), record.linker_dir.join("bpf-linker")] {
        if !program.exists() {
            bail!(
                "{} names {}, which is gone: {ADVICE}",
                file.display(),
                program.display()
            );
        }
    }
    // A new LLVM writes bitcode that the linker for the old one may not read.
    let version = Command::new(&record.rustc).arg("-vV").output();
    let version = version.with_context(|| format!("cannot start {}", record.rustc.display()))?;
    let llvm = format!("LLVM version: {}\n", record.llvm_version);
    if !String::from_utf8_lossy(&version.stdout).contains(&llvm) {
        bail!("{} was updated: {ADVICE}", record.rustc.display());
    }
    Ok(record)
}

/// Puts the recorded programs where aya-build finds them: first on PATH.
fn obey(record: &Record, out_dir: &Path, compile: &mut Command) -> Result<()> {
    let mut path = Vec::new();
    if record.kind == Kind::Distribution {
        path.push(distribution_path(record, out_dir)?);
        // aya-ebpf uses an unstable feature for its assembly on the BPF target. Not
        // `1`: aya-build would then compile `core` anew, from sources that are not there.
        compile.env("RUSTC_BOOTSTRAP", "aya_ebpf,splitlock_ebpf");
    }
    path.push(record.linker_dir.clone());
    let rest = env::var_os("PATH").unwrap_or_default();
    path.extend(env::split_paths(&rest));
    compile.env("PATH", env::join_paths(path).context("PATH")?);
    Ok(())
}

/// A folder with the distribution's rustc, the cargo in use, and a `rustup` that starts what it is told.
///
/// aya-build starts everything by `rustup run nightly` where there is a rustup.
fn distribution_path(record: &Record, out_dir: &Path) -> Result<PathBuf> {
    let folder = out_dir.join("path");
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let cargo = PathBuf::from(env::var_os("CARGO").context("CARGO is not set")?);
    for (name, program) in [("cargo", &cargo), ("rustc", &record.rustc)] {
        let link = folder.join(name);
        symlink(program, &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    let rustup = folder.join("rustup");
    let script = "#!/bin/sh\n# rustup run TOOLCHAIN PROGRAM ...\nshift 2\nexec \"$@\"\n";
    fs::write(&rustup, script).with_context(|| format!("cannot write {}", rustup.display()))?;
    fs::set_permissions(&rustup, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", rustup.display()))?;
    Ok(folder)
}

/// Without a record: what aya-build takes by itself, if all of it is there.
fn check_stock_toolchain() -> Result<()> {
    let sysroot = Command::new("rustup")
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let Some(sysroot) = sysroot else {
        bail!("no record of what compiles BPF, and no nightly toolchain of rustup: {ADVICE}");
    };
    if !Path::new(sysroot.trim_end())
        .join("lib/rustlib/src/rust/library/core")
        .is_dir()
    {
        bail!("no record of what compiles BPF, and rustup's nightly has no rust-src: {ADVICE}");
    }
    let linker = Command::new("bpf-linker").arg("--version").output();
    if !linker.is_ok_and(|output| output.status.success()) {
        bail!("no record of what compiles BPF, and no bpf-linker on PATH: {ADVICE}");
    }
    Ok(())
}
