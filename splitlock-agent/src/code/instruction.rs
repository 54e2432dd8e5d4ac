//! One instruction: its length, its text, and where its memory operand was.

use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, Formatter as _, Instruction as Decoded,
    InstructionInfoFactory, IntelFormatter, MemorySizeOptions, Mnemonic, OpAccess, OpKind,
    Register,
};

use super::{LONGEST_INSTRUCTION, Operand, Registers};

/// How wide the process's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32-bit code, also on a 64-bit kernel.
    Bits32,
    /// 64-bit code, which x32's is too.
    Bits64,
}

/// Of which moment the registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the instruction, as a fault (`#AC`) has them.
    Before,
    /// Behind it, as a trap (`#DB`) has them: what it wrote is not what it was addressed by.
    Behind,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its bytes.
    pub length: usize,
    /// Its text, in Intel's syntax.
    pub text: String,
    /// Whether its access to memory is locked: by a prefix, or as `xchg` with memory always is.
    pub is_locked: bool,
    /// Its memory operand, where the address can be told.
    pub operand: Option<Operand>,
}

/// The instruction that `bytes` begin with, at `ip`; `None` where they are none, or too few.
pub fn decode(
    width: Width,
    ip: u64,
    bytes: &[u8],
    registers: Option<(&Registers, Moment)>,
) -> Option<Instruction> {
    let decoded = decode_one(width, ip, bytes)?;
    Some(Instruction {
        length: decoded.len(),
        text: text(&decoded),
        is_locked: is_locked(&decoded),
        operand: operand(&decoded, registers),
    })
}

/// Decodes without formatting, for those who search.
pub(super) fn decode_one(width: Width, ip: u64, bytes: &[u8]) -> Option<Decoded> {
    let bits = match width {
        Width::Bits32 => 32,
        Width::Bits64 => 64,
    };
    let bytes = &bytes[..bytes.len().min(LONGEST_INSTRUCTION)];
    let mut decoder = Decoder::with_ip(bits, bytes, ip, DecoderOptions::NONE);
    // A decoder without bytes says the same as one with invalid ones.
    let decoded = decoder.decode();
    (!decoded.is_invalid()).then_some(decoded)
}

/// Whether the access to memory is locked. The decoder takes a LOCK prefix only where the processor
/// does.
pub(super) fn is_locked(decoded: &Decoded) -> bool {
    let exchanges = matches!(
        decoded.code(),
        Opcode::Xchg_rm8_r8 | Opcode::Xchg_rm16_r16 | Opcode::Xchg_rm32_r32 | Opcode::Xchg_rm64_r64
    );
    decoded.has_lock_prefix() || exchanges && memory_operand(decoded).is_some()
}

fn text(decoded: &Decoded) -> String {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_space_after_operand_separator(true);
    options.set_memory_size_options(MemorySizeOptions::Always);
    let mut text = String::new();
    formatter.format(decoded, &mut text);
    text
}

/// The number of the operand that is in memory. Pushes and pops have none here: the stack is no
/// operand of theirs.
fn memory_operand(decoded: &Decoded) -> Option<u32> {
    (0..decoded.op_count()).find(|number| {
        matches!(
            decoded.op_kind(*number),
            OpKind::Memory
                | OpKind::MemorySegSI
                | OpKind::MemorySegESI
                | OpKind::MemorySegRSI
                | OpKind::MemorySegDI
                | OpKind::MemorySegEDI
                | OpKind::MemorySegRDI
                | OpKind::MemoryESDI
                | OpKind::MemoryESEDI
                | OpKind::MemoryESRDI
        )
    })
}

fn operand(decoded: &Decoded, registers: Option<(&Registers, Moment)>) -> Option<Operand> {
    let number = memory_operand(decoded)?;
    let size = u32::try_from(decoded.memory_size().size()).ok()?;
    // `lea` and long `nop`s access nothing, `xsave` a size that is not in the instruction.
    if size == 0 || decoded.mnemonic() == Mnemonic::Nop {
        return None;
    }
    let written = match registers {
        Some((_, Moment::Behind)) => written(decoded),
        _ => vec![],
    };
    let address = decoded.virtual_address(number, 0, |register, _, _| match register {
        // Their base is 0 in 64-bit mode, and in all 32-bit processes of Linux.
        Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
        _ if register.is_gpr() => {
            let whole = register.full_register();
            let (values, _) = registers?;
            (!written.contains(&whole)).then(|| values[whole.number()])
        }
        // FS and GS have bases that no trap tells, and vectors an address for each element.
        _ => None,
    })?;
    Some(Operand::new(address, size))
}

/// The general registers that it writes, or may.
fn written(decoded: &Decoded) -> Vec<Register> {
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(decoded).used_registers();
    used.iter()
        .filter(|used| {
            matches!(
                used.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            )
        })
        .map(|used| used.register().full_register())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: u64 = 0x5555_0000_1000;

    fn registers() -> Registers {
        std::array::from_fn(|number| 0x1000 * (number as u64 + 1))
    }

    fn decoded(bytes: &[u8], moment: Moment) -> Instruction {
        decode(Width::Bits64, IP, bytes, Some((&registers(), moment))).unwrap()
    }

    #[test]
    fn text_length_and_lock() {
        for (bytes, text, locked) in [
            (
                &b"\xf0\x48\x0f\xb1\x77\x10"[..],
                "lock cmpxchg qword ptr [rdi+0x10], rsi",
                true,
            ),
            (b"\xf0\xff\x07", "lock inc dword ptr [rdi]", true),
            (b"\x48\x87\x07", "xchg qword ptr [rdi], rax", true),
            (b"\x48\x87\xc7", "xchg rdi, rax", false),
            (b"\x48\x8b\x07", "mov rax, qword ptr [rdi]", false),
            (b"\x90", "nop", false),
        ] {
            // What follows is not part of it.
            let padded = [bytes, &[0xcc; 4]].concat();
            let found = decoded(&padded, Moment::Before);
            assert_eq!(found.text, text);
            assert_eq!(found.length, bytes.len(), "{text}");
            assert_eq!(found.is_locked, locked, "{text}");
        }
    }

    #[test]
    fn no_instruction() {
        let decode = |bytes| decode(Width::Bits64, IP, bytes, None);
        assert_eq!(decode(b""), None);
        // Cut off, a LOCK prefix that the processor refuses, and no opcode of 64-bit mode.
        assert_eq!(decode(b"\xf0\x48\x0f"), None);
        assert_eq!(decode(b"\xf0\x48\x8b\x07"), None);
        assert_eq!(decode(b"\x06"), None);
    }

    #[test]
    fn operands_by_registers() {
        let operand = |bytes: &[u8]| decoded(bytes, Moment::Before).operand;
        // rdi is number 7, rsi 6, r9 9, rax 0.
        assert_eq!(
            operand(b"\xf0\x48\x0f\xb1\x77\x3c"),
            Some(Operand::new(0x803c, 8))
        );
        // lock add dword ptr [r9+rax*4-2], 1
        assert_eq!(
            operand(b"\xf0\x41\x83\x44\x81\xfe\x01"),
            Some(Operand::new(0xa000 + 0x4000 - 2, 4))
        );
        // lock cmpxchg16b [rsi]
        assert_eq!(
            operand(b"\xf0\x48\x0f\xc7\x0e"),
            Some(Operand::new(0x7000, 16))
        );
        // 32-bit addressing cuts: lock inc dword ptr [edi-0x8001]
        assert_eq!(
            operand(b"\x67\xf0\xff\x87\xff\x7f\xff\xff"),
            Some(Operand::new(0xffff_ffff, 4))
        );
        // mov rax, fs:[rdi]; a vector gather; lea; nop dword ptr [rax]
        assert_eq!(operand(b"\x64\x48\x8b\x07"), None);
        assert_eq!(operand(b"\xc4\xe2\x75\x92\x04\x17"), None);
        assert_eq!(operand(b"\x48\x8d\x07"), None);
        assert_eq!(operand(b"\x0f\x1f\x00"), None);
    }

    #[test]
    fn operands_without_registers() {
        let operand = |bytes| decode(Width::Bits64, IP, bytes, None).unwrap().operand;
        // lock inc dword ptr [rip+0x39]: behind 7 bytes.
        assert_eq!(
            operand(b"\xf0\xff\x05\x39\x00\x00\x00"),
            Some(Operand::new(IP + 7 + 0x39, 4))
        );
        // lock inc dword ptr [0x12345678]
        assert_eq!(
            operand(b"\xf0\xff\x04\x25\x78\x56\x34\x12"),
            Some(Operand::new(0x1234_5678, 4))
        );
        assert_eq!(operand(b"\xf0\xff\x07"), None);
    }

    #[test]
    fn behind_it_what_it_wrote_does_not_tell() {
        // lock xadd [rax], rax and lock xadd [rdi], rax
        let own = b"\xf0\x48\x0f\xc1\x00";
        let other = b"\xf0\x48\x0f\xc1\x07";
        assert!(decoded(own, Moment::Before).operand.is_some());
        assert_eq!(decoded(own, Moment::Behind).operand, None);
        assert!(decoded(other, Moment::Behind).operand.is_some());
        // lock cmpxchg [rax], ecx writes eax if the comparison fails.
        assert_eq!(decoded(b"\xf0\x0f\xb1\x08", Moment::Behind).operand, None);
    }

    #[test]
    fn code_of_32_bits() {
        let values = registers();
        let decode = |bytes| {
            decode(
                Width::Bits32,
                0x0804_8000,
                bytes,
                Some((&values, Moment::Before)),
            )
        };
        // 0x48 is `dec eax` there.
        assert_eq!(decode(b"\x48\x87\x07").unwrap().text, "dec eax");
        let inc = decode(b"\xf0\xff\x05\x3e\x00\x00\x09").unwrap();
        assert_eq!(inc.operand, Some(Operand::new(0x0900_003e, 4)));
        assert!(inc.operand.unwrap().crosses_line);
    }

    #[test]
    fn fuzz_instruction() {
        bolero::check!(name = "instruction")
            .with_type::<(bool, u64, Vec<u8>, [u64; 16], bool)>()
            .for_each(|(wide, ip, bytes, registers, behind)| {
                let width = if *wide { Width::Bits64 } else { Width::Bits32 };
                let moment = if *behind {
                    Moment::Behind
                } else {
                    Moment::Before
                };
                if let Some(found) = decode(width, *ip, bytes, Some((registers, moment))) {
                    assert!((1..=bytes.len().min(LONGEST_INSTRUCTION)).contains(&found.length));
                    // It is its own bytes alone.
                    let alone = &bytes[..found.length];
                    let again = decode(width, *ip, alone, Some((registers, moment)));
                    assert_eq!(again, Some(found));
                }
            });
    }
}
