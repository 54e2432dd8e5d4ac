//! What is at an instruction address: file, function, source line, the instruction, its operand.
//!
//! Question and answer only; who asks, and how often, is not known here.
//!
//! Files of tenants may be made to crash, to stop or to swell who reads them, so another process
//! reads them ([`child`]), which [`symbolizer`] starts when something is asked.

mod behind;
pub mod child;
mod debug_info;
mod files;
mod image;
mod instruction;
mod known;
mod look;
mod maps;
mod naming;
mod perf_map;
mod separate;
mod site;
pub mod symbolizer;
mod told;
pub mod turns;
mod unfiled;
mod wire;
mod worker;

use serde::{Deserialize, Serialize};

use crate::subjects::SubjectId;

/// Bytes of the longest x86 instruction.
pub const LONGEST_INSTRUCTION: usize = 15;

/// The general registers at a trap, in the order of their numbers in an instruction: `rax`, `rcx`,
/// `rdx`, `rbx`, `rsp`, `rbp`, `rsi`, `rdi`, `r8` to `r15`.
pub type Registers = [u64; 16];

/// Where in a file an instruction is, as the kernel saw it at the trap
/// (`BPF_F_USER_BUILD_ID`). It stays true when the process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InFile {
    /// GNU build id of the file, shorter ones filled up with zeros.
    pub build_id: [u8; 20],
    /// Offset in the file, in bytes.
    pub offset: u64,
}

/// What is there?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The process whose own code it is.
    pub subject: SubjectId,
    /// The instruction's address in it.
    pub ip: u64,
    /// Whether `ip` is behind the instruction, as a debug exception (`#DB`, a bus lock) has it.
    pub is_behind: bool,
    /// The bytes that end at `ip` at the trap; none where they could not be read.
    pub before: Vec<u8>,
    /// The bytes at `ip` at the trap, likewise; they may be fewer than 15.
    pub bytes: Vec<u8>,
    /// The registers at the trap, where the hook saw them.
    pub registers: Option<Registers>,
    /// The file and the place in it, where the kernel told.
    pub in_file: Option<InFile>,
}

/// What is at an address. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// The file, as its process sees the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The file's GNU build id, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Offset in the file, hexadecimal with `0x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// The function, demangled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Offset in the function, hexadecimal with `0x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_offset: Option<String>,
    /// Source file and line, `FILE:LINE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The instruction's bytes, hexadecimal with spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// The instruction, disassembled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// Its memory operand at the trap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operand: Option<Operand>,
    /// Why something is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// A memory operand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operand {
    /// Its address, hexadecimal with `0x`.
    pub address: String,
    /// The address modulo the 64 bytes of a cache line.
    pub modulo_64: u8,
    /// Bytes that the instruction accesses.
    pub size: u32,
    /// Whether it crosses a cache line.
    pub crosses_line: bool,
}

impl Code {
    /// The function with the offset in it, `spin+0x4`.
    pub fn place(&self) -> Option<String> {
        let function = self.function.as_deref()?;
        Some(match self.function_offset.as_deref() {
            None | Some("0x0") => function.to_owned(),
            Some(offset) => format!("{function}+{offset}"),
        })
    }
}

impl Operand {
    /// An operand of `size` bytes at `address`.
    pub fn new(address: u64, size: u32) -> Self {
        let modulo_64 = (address % 64) as u8;
        Self {
            address: format!("{address:#x}"),
            modulo_64,
            size,
            crosses_line: u32::from(modulo_64) + size > 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operand_crosses_a_line_by_its_last_byte() {
        for (address, size, crosses) in [
            (0, 8, false),
            (56, 8, false),
            (57, 8, true),
            (63, 1, false),
            (63, 2, true),
            (127, 4, true),
        ] {
            assert_eq!(
                Operand::new(address, size).crosses_line,
                crosses,
                "{address}"
            );
        }
    }
}
