//! Looking for a rustc that can compile for `bpfel-unknown-none`.

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    TARGET,
    linker::LLVM_MAJORS,
    record::Kind,
    rustc::{LibLlvm, RustcVersion, major_minor},
};
use crate::command;

/// The oldest compiler that the workspace accepts.
pub const MINIMUM: &str = env!("CARGO_PKG_RUST_VERSION");

/// A rustc that can compile BPF.
pub struct Compiler {
    /// How to invoke it.
    pub kind: Kind,
    /// The program itself, not rustup's proxy.
    pub rustc: PathBuf,
    /// Its versions.
    pub version: RustcVersion,
    /// The LLVM that it writes bitcode with.
    pub llvm: LibLlvm,
}

/// Why each compiler of this machine is of no use, one reason an entry.
pub struct Unusable(pub Vec<String>);

/// The first usable compiler: those on PATH in PATH's order, else rustup's nightly.
///
/// A distribution's release comes first because it stays what it is, while a
/// nightly may change under the same source.
pub fn find() -> Result<Compiler, Unusable> {
    let mut reasons = Vec::new();
    let mut seen = BTreeSet::new();
    for rustc in command::all_on_path("rustc") {
        // Several names lead to one compiler: /bin and /usr/bin, rustup's proxies.
        let Ok(sysroot) = sysroot(Command::new(&rustc)) else {
            continue;
        };
        if !seen.insert(sysroot.clone()) {
            continue;
        }
        match distribution(&sysroot) {
            Ok(compiler) => return Ok(compiler),
            Err(reason) => reasons.push(format!("{reason:#}")),
        }
    }
    match nightly() {
        Ok(compiler) => Ok(compiler),
        Err(reason) => {
            reasons.push(format!("nightly: {reason:#}"));
            Err(Unusable(reasons))
        }
    }
}

/// The folder of rustup's nightly, if it is installed.
pub fn nightly_sysroot() -> Option<PathBuf> {
    let mut rustc = Command::new("rustup");
    // Looking must not install.
    rustc.env("RUSTUP_AUTO_INSTALL", "0");
    rustc.args(["run", "nightly", "rustc"]);
    sysroot(rustc).ok()
}

fn nightly() -> Result<Compiler> {
    command::on_path("rustup").context("rustup is not on PATH")?;
    let sysroot = nightly_sysroot().context("rustup has no nightly toolchain")?;
    ensure!(
        sysroot.join("lib/rustlib/src/rust/library/core").is_dir(),
        "rustup's nightly has no component rust-src"
    );
    inspect(Kind::Nightly, &sysroot)
}

fn distribution(sysroot: &Path) -> Result<Compiler> {
    let folder = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let has_core = fs::read_dir(&folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    });
    ensure!(
        has_core,
        "{}: no core library for {TARGET}",
        sysroot.join("bin/rustc").display()
    );
    inspect(Kind::Distribution, sysroot)
}

fn inspect(kind: Kind, sysroot: &Path) -> Result<Compiler> {
    let rustc = sysroot.join("bin/rustc");
    let version = RustcVersion::parse(&command::output(Command::new(&rustc).arg("-vV"))?)?;
    let RustcVersion { release, llvm: _ } = &version;
    let name = rustc.display();
    ensure!(
        version.release()? >= major_minor(MINIMUM)?,
        "{name}: version {release}, older than {MINIMUM}"
    );
    let llvm_major = version.llvm_major()?;
    ensure!(
        LLVM_MAJORS.contains(&llvm_major),
        "{name}: has LLVM {llvm_major}, which bpf-linker {} does not know",
        super::linker::VERSION
    );
    let llvm = shared_llvm(&rustc, llvm_major)?;
    Ok(Compiler {
        kind,
        rustc,
        version,
        llvm,
    })
}

/// The LLVM library of a compiler: bpf-linker is linked with the very library
/// that wrote the bitcode, so that no second LLVM and no headers are needed.
fn shared_llvm(rustc: &Path, major: u32) -> Result<LibLlvm> {
    let ldd = command::output(Command::new("ldd").arg(rustc))?;
    if let Some(llvm) = LibLlvm::parse_ldd(&ldd) {
        return Ok(llvm);
    }
    // A compiler with LLVM inside: apt.llvm.org's and Debian's place for the same major version.
    let file = PathBuf::from(format!("/usr/lib/llvm-{major}/lib/libLLVM.so"));
    let real = fs::canonicalize(&file).with_context(|| {
        format!(
            "{}: no shared LLVM, and there is no {} (package llvm-{major}-dev)",
            rustc.display(),
            file.display()
        )
    })?;
    let soname = real
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(LibLlvm { soname, file: real })
}

fn sysroot(mut rustc: Command) -> Result<PathBuf> {
    let sysroot = command::output(rustc.args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(sysroot.trim_end()))
}

impl Display for Unusable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(reasons) = self;
        reasons
            .iter()
            .try_for_each(|reason| writeln!(f, "  - {reason}"))
    }
}
