//! The instruction that a question is about, from the bytes around its address.

use super::{
    Code, LONGEST_INSTRUCTION, Question, Registers, behind,
    instruction::{Instruction, Moment, Width, decode},
};

/// What is known of the instruction.
#[derive(Clone, Debug)]
pub struct Site {
    ip: u64,
    registers: Option<Registers>,
    is_behind: bool,
    /// The bytes at `ip`.
    at: Vec<u8>,
    /// The bytes that end at `ip`.
    before: Vec<u8>,
    width: Option<Width>,
    /// The length of the instruction that ends at `ip`, once it is known.
    length_behind: Option<usize>,
}

impl Site {
    /// As the kernel told of it.
    pub fn of(question: &Question) -> Self {
        let ip = question.ip;
        let mut at = question.bytes.clone();
        at.truncate(LONGEST_INSTRUCTION);
        let mut site = Self {
            ip,
            registers: question.registers,
            is_behind: question.is_behind,
            at,
            before: question.before.clone(),
            // Code of 32 bits is below.
            width: (ip > u64::from(u32::MAX)).then_some(Width::Bits64),
            length_behind: None,
        };
        site.look_behind();
        site
    }

    /// An address that is the instruction's, though maybe not its first.
    pub const fn inside(&self) -> u64 {
        self.ip.wrapping_sub(self.is_behind as u64)
    }

    /// How many bytes before `ip` are needed.
    pub const fn needs_before(&self) -> usize {
        if self.is_behind && self.before.len() < behind::BYTES {
            behind::BYTES
        } else {
            0
        }
    }

    /// How many bytes at `ip` are needed.
    pub const fn needs_at(&self) -> usize {
        if !self.is_behind && self.at.is_empty() {
            LONGEST_INSTRUCTION
        } else {
            0
        }
    }

    /// Takes the bytes that end at `ip`, if there are more than before, and they are those that were
    /// there at the trap: the process may have changed its code since.
    pub fn set_before(&mut self, bytes: Vec<u8>) {
        if bytes.ends_with(&self.before) {
            self.before = bytes;
            self.look_behind();
        }
    }

    /// Takes the bytes at `ip`.
    pub fn set_at(&mut self, bytes: Vec<u8>) {
        self.at = bytes;
    }

    /// Takes the width of the process's code.
    pub fn set_width(&mut self, width: Width) {
        self.width = Some(width);
        self.look_behind();
    }

    /// How wide the code is, if that is known.
    pub const fn width(&self) -> Option<Width> {
        self.width
    }

    /// Takes the bytes from the function's begin to `ip`: nothing is guessed with them.
    pub fn set_function(&mut self, function: &[u8]) {
        if let (true, Some(width)) = (self.is_behind, self.width)
            && let Some(length) = behind::length_in_function(width, self.ip, function)
        {
            let instruction = &function[function.len() - length..];
            if instruction.ends_with(&self.before) || self.before.ends_with(instruction) {
                self.before = instruction.to_vec();
                self.length_behind = Some(length);
            }
        }
    }

    fn look_behind(&mut self) {
        if let (true, Some(width)) = (self.is_behind, self.width) {
            self.length_behind = behind::length(width, self.ip, &self.before);
        }
    }

    /// How far before `ip` the instruction begins; `None` where that cannot be told.
    pub const fn distance(&self) -> Option<usize> {
        if self.is_behind {
            self.length_behind
        } else {
            Some(0)
        }
    }

    /// Writes what is known into an answer.
    pub fn describe(&self, code: &mut Code) {
        let Some(width) = self.width else {
            return;
        };
        let Some(distance) = self.distance() else {
            if !self.before.is_empty() {
                code.lacks("which instruction ends at the address cannot be told for certain");
            }
            return;
        };
        let (bytes, moment) = if self.is_behind {
            let start = self.before.len() - distance;
            (&self.before[start..], Moment::Behind)
        } else {
            (&self.at[..], Moment::Before)
        };
        let start = self.ip.wrapping_sub(distance as u64);
        let registers = self.registers.as_ref().map(|values| (values, moment));
        match decode(width, start, bytes, registers) {
            Some(Instruction {
                length,
                text,
                operand,
                is_locked: _,
            }) => {
                code.bytes = Some(hexadecimal(&bytes[..length]));
                code.instruction = Some(text);
                code.operand = operand;
            }
            None if bytes.is_empty() => {}
            None => {
                code.bytes = Some(hexadecimal(bytes));
                code.lacks("the bytes at the address are no instruction");
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::SubjectId;

    /// `nop` up to `lock inc dword ptr [rdi]`.
    fn code(length: usize) -> Vec<u8> {
        [&vec![0x90; length - 3][..], b"\xf0\xff\x07"].concat()
    }

    fn site(before: Vec<u8>) -> Site {
        Site::of(&Question {
            subject: SubjectId {
                pid: 1,
                start_ticks: 1,
            },
            ip: 0x5555_0000_1000,
            is_behind: true,
            before,
            bytes: vec![0x90; 15],
            registers: None,
            in_file: None,
        })
    }

    fn text(site: &Site) -> Option<String> {
        let mut code = Code::default();
        site.describe(&mut code);
        code.instruction
    }

    #[test]
    fn what_the_kernel_read_is_enough_where_it_is_certain() {
        let site = site(code(16));
        assert_eq!(site.distance(), Some(3));
        assert_eq!(text(&site).as_deref(), Some("lock inc dword ptr [rdi]"));
        assert_eq!(site.needs_before(), behind::BYTES);
    }

    #[test]
    fn more_is_believed_if_it_was_so_at_the_trap() {
        // `xchg [rdi], eax` or `xchg [rdi], rax`: only with more bytes it is certain.
        let exchange = [&[0x90; 14][..], b"\x48\x87\x07"].concat();
        let mut ambiguous = site(b"\x48\x87\x07".to_vec());
        assert_eq!(ambiguous.distance(), None);
        ambiguous.set_before(code(behind::BYTES));
        assert_eq!(ambiguous.distance(), None);
        ambiguous.set_function(&code(64));
        assert_eq!(ambiguous.distance(), None);
        let mut by_function = ambiguous.clone();
        by_function.set_function(&exchange);
        assert_eq!(by_function.distance(), Some(3));
        ambiguous.set_before([vec![0x90; behind::BYTES], exchange].concat());
        assert_eq!(ambiguous.distance(), Some(3));
        assert_eq!(
            text(&ambiguous).as_deref(),
            Some("xchg qword ptr [rdi], rax")
        );
    }

    #[test]
    fn fuzz_site() {
        type Input = (u64, bool, Option<bool>, [Vec<u8>; 4], Option<Registers>);
        bolero::check!(name = "site").with_type::<Input>().for_each(
            |(ip, is_behind, wide, [before, at, more, function], registers)| {
                let mut site = Site::of(&Question {
                    subject: SubjectId {
                        pid: 1,
                        start_ticks: 1,
                    },
                    ip: *ip,
                    is_behind: *is_behind,
                    before: before.clone(),
                    bytes: at.clone(),
                    registers: *registers,
                    in_file: None,
                });
                for step in 0..4 {
                    match (step, wide) {
                        (1, Some(true)) => site.set_width(Width::Bits64),
                        (1, Some(false)) => site.set_width(Width::Bits32),
                        (2, _) => site.set_before(more.clone()),
                        (3, _) => site.set_function(function),
                        _ => {}
                    }
                    let mut code = Code::default();
                    site.describe(&mut code);
                    assert!(
                        site.distance()
                            .is_none_or(|distance| distance <= LONGEST_INSTRUCTION)
                    );
                    let mut fitted = code.clone();
                    fitted.fit();
                    assert_eq!(fitted, code);
                }
            },
        );
    }
}
