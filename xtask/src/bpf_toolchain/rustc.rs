//! What `rustc -vV` and the dynamic loader tell about a compiler.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The versions of a rustc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RustcVersion {
    /// Like `1.96.0` or `1.97.0-nightly`.
    pub release: String,
    /// The LLVM inside, like `22.1.8`.
    pub llvm: String,
}

impl RustcVersion {
    /// Reads the output of `rustc -vV`.
    pub fn parse(verbose: &str) -> Result<Self> {
        let value = |key: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .map(str::to_owned)
                .with_context(|| format!("rustc -vV says no {key:?}"))
        };
        Ok(Self {
            release: value("release")?,
            llvm: value("LLVM version")?,
        })
    }

    /// Major and minor version of the compiler.
    pub fn release(&self) -> Result<(u32, u32)> {
        major_minor(&self.release)
    }

    /// The major version of the LLVM inside, which bitcode must agree in.
    pub fn llvm_major(&self) -> Result<u32> {
        let llvm = &self.llvm;
        let major = llvm.split('.').next().unwrap_or_default();
        major
            .parse()
            .with_context(|| format!("LLVM version {llvm:?}"))
    }
}

/// The first two numbers of a version.
pub fn major_minor(version: &str) -> Result<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(anyhow::anyhow!("{version:?} is no version")),
    }
}

/// A shared LLVM library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibLlvm {
    /// The name that programs linked with it ask the loader for.
    pub soname: String,
    /// Where the file is.
    pub file: PathBuf,
}

impl LibLlvm {
    /// Finds the LLVM in the output of `ldd RUSTC`, whose lines are `SONAME => FILE (ADDRESS)`.
    pub fn parse_ldd(ldd: &str) -> Option<Self> {
        ldd.lines().find_map(|line| {
            let (soname, file) = line.trim().split_once(" => ")?;
            let (file, _address) = file.rsplit_once(" (")?;
            soname.starts_with("libLLVM").then(|| Self {
                soname: soname.to_owned(),
                file: file.into(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
        binary: rustc\ncommit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96\n\
        commit-date: 2026-05-25\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\n\
        LLVM version: 22.1.8\n";

    #[test]
    fn reads_a_release() {
        let version = RustcVersion::parse(DEBIAN).unwrap();
        assert_eq!(version.release, "1.96.0");
        assert_eq!(version.release().unwrap(), (1, 96));
        assert_eq!(version.llvm, "22.1.8");
        assert_eq!(version.llvm_major().unwrap(), 22);
    }

    #[test]
    fn reads_a_nightly() {
        let verbose = DEBIAN.replace("release: 1.96.0", "release: 1.97.0-nightly");
        let version = RustcVersion::parse(&verbose).unwrap();
        assert_eq!(version.release().unwrap(), (1, 97));
    }

    #[test]
    fn says_what_is_not_there() {
        // A rustc with another code generator has no such line.
        let verbose = DEBIAN.replace("LLVM version: 22.1.8\n", "");
        let error = RustcVersion::parse(&verbose).unwrap_err().to_string();
        assert!(error.contains("LLVM version"), "{error}");
        assert!(major_minor("1").is_err());
        assert!(major_minor("").is_err());
        assert_eq!(major_minor("1.95").unwrap(), (1, 95));
    }

    #[test]
    fn finds_the_llvm_of_a_distribution_and_of_rustup() {
        let ldd = "\tlinux-vdso.so.1 (0x00007fab)\n\
            \tlibrustc_driver-2a0f.so => /lib/x86_64-linux-gnu/librustc_driver-2a0f.so (0x00007fac)\n\
            \tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007fad)\n";
        let llvm = LibLlvm::parse_ldd(ldd).unwrap();
        assert_eq!(llvm.soname, "libLLVM.so.22.1");
        assert_eq!(
            llvm.file,
            PathBuf::from("/lib/x86_64-linux-gnu/libLLVM.so.22.1")
        );

        let ldd = "\tlibLLVM.so.22.1-rust-1.97.0-nightly => \
                   /t/bin/../lib/libLLVM.so.22.1-rust-1.97.0-nightly (0x00007f89a0400000)\n";
        let llvm = LibLlvm::parse_ldd(ldd).unwrap();
        assert_eq!(llvm.soname, "libLLVM.so.22.1-rust-1.97.0-nightly");
    }

    #[test]
    fn an_llvm_inside_the_compiler_is_none() {
        assert_eq!(LibLlvm::parse_ldd("\tstatically linked\n"), None);
        assert_eq!(LibLlvm::parse_ldd("\tlibLLVM.so.22.1 => not found\n"), None);
    }
}
