//! What aya is to know of the kernel's BTF: the ids of the functions that fentry attaches to.
//!
//! aya takes such an id from a BTF by the function's name, and reading all of the kernel's builds
//! each of its 100,000 types in memory, which then stays with the allocator: 20 MiB. So it is given
//! a stand-in, in which those functions have the kernel's ids and every other type is the smallest
//! there is.

use std::fs;

use anyhow::{Context as _, Result, anyhow};
use aya::{Btf, Endianness};

use crate::host::btf;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: u32 = 24;
const KIND_FWD: u32 = 7;
const KIND_FUNC: u32 = 12;

/// The stand-in for these functions; those that the kernel does not describe are left out.
///
/// # Errors
/// The kernel's BTF is not there, or not readable.
pub fn stand_in(functions: &[&str]) -> Result<Btf> {
    let bytes = fs::read(VMLINUX).with_context(|| VMLINUX.to_owned())?;
    let kernel = btf::Btf::parse(&bytes, None).with_context(|| VMLINUX.to_owned())?;
    let ids: Vec<(&str, u32)> = functions
        .iter()
        .filter_map(|function| Some((*function, kernel.function_id(function).ok()?)))
        .collect();
    Btf::parse(&encode(&ids), Endianness::default())
        .map_err(|error| anyhow!("the stand-in for {VMLINUX}: {error}"))
}

/// BTF in which the functions have these ids.
fn encode(functions: &[(&str, u32)]) -> Vec<u8> {
    let mut strings = vec![0];
    let last = functions.iter().map(|(_, id)| *id).max().unwrap_or(0);
    let mut types = Vec::with_capacity(last as usize * 12);
    for id in 1..=last {
        let function = functions.iter().find(|(_, of)| *of == id);
        let (name, kind) = match function {
            Some((name, _)) => {
                let offset = strings.len() as u32;
                strings.extend(name.bytes());
                strings.push(0);
                (offset, KIND_FUNC)
            }
            None => (0, KIND_FWD),
        };
        for word in [name, kind << 24, 0] {
            types.extend(word.to_le_bytes());
        }
    }
    let mut bytes = Vec::with_capacity(HEADER_LEN as usize + types.len() + strings.len());
    bytes.extend(MAGIC.to_le_bytes());
    // Version 1, no flags.
    bytes.extend([1, 0]);
    let types_len = types.len() as u32;
    for word in [HEADER_LEN, 0, types_len, types_len, strings.len() as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_have_the_kernels_ids() {
        let bytes = encode(&[("handle_bus_lock", 70_001), ("split_lock_warn", 3)]);
        let own = btf::Btf::parse(&bytes, None).unwrap();
        assert_eq!(own.function_id("handle_bus_lock"), Ok(70_001));
        assert_eq!(own.function_id("split_lock_warn"), Ok(3));
        let aya = Btf::parse(&bytes, Endianness::default()).unwrap();
        let again = btf::Btf::parse(&aya.to_bytes(), None).map(|btf| {
            ["handle_bus_lock", "split_lock_warn"].map(|function| btf.function_id(function))
        });
        assert_eq!(again, Ok([Ok(70_001), Ok(3)]));
    }

    #[test]
    fn without_functions_it_is_still_btf() {
        assert!(Btf::parse(&encode(&[]), Endianness::default()).is_ok());
    }
}
