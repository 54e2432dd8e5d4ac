//! Build ids as text and as the kernel has them, and what an answer says of itself.

use super::{Code, InFile, Operand};
use crate::subjects::names::{PATH_LIMIT, printable_within};

impl Code {
    /// What the kernel alone tells.
    pub fn of_kernel(in_file: Option<InFile>) -> Self {
        let Some(InFile { build_id, offset }) = in_file else {
            return Self::default();
        };
        // Which zeros are filling is not told; lengths are 20, 16 and 8 bytes in practice.
        let length = [8, 16]
            .into_iter()
            .find(|length| build_id[*length..].iter().all(|byte| *byte == 0))
            .unwrap_or(20);
        Self {
            build_id: Some(hexadecimal(&build_id[..length])),
            offset: Some(format!("{offset:#x}")),
            ..Self::default()
        }
    }

    /// Makes its texts printable and bounded, whoever wrote them.
    pub fn fit(&mut self) {
        let Self {
            file,
            build_id,
            offset,
            function,
            function_offset,
            source,
            bytes,
            instruction,
            operand,
            missing,
        } = self;
        let address = operand.as_mut().map(|Operand { address, .. }| address);
        let texts = [
            file,
            build_id,
            offset,
            function,
            function_offset,
            source,
            bytes,
            instruction,
            missing,
        ];
        for text in texts.into_iter().flatten().chain(address) {
            *text = printable_within(text.as_bytes(), PATH_LIMIT);
        }
    }

    /// Says why something is not known.
    pub fn lacks(&mut self, why: &str) {
        match &mut self.missing {
            Some(missing) if missing.contains(why) => {}
            Some(missing) => {
                missing.push_str("; ");
                missing.push_str(why);
            }
            None => self.missing = Some(why.to_owned()),
        }
    }
}

/// A build id as text.
pub fn hexadecimal(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As the kernel has it: 20 bytes, the rest zeros.
pub fn padded(id: &[u8]) -> Option<[u8; 20]> {
    let mut padded = [0; 20];
    padded.get_mut(..id.len())?.copy_from_slice(id);
    Some(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_filling_is_no_part_of_a_build_id() {
        for length in [8, 16, 20] {
            let id: Vec<u8> = (1..=length).collect();
            let in_file = InFile {
                build_id: padded(&id).unwrap(),
                offset: 0x10,
            };
            let code = Code::of_kernel(Some(in_file));
            assert_eq!(code.build_id, Some(hexadecimal(&id)));
            assert_eq!(code.offset.as_deref(), Some("0x10"));
        }
        assert_eq!(padded(&[1; 21]), None);
        assert_eq!(Code::of_kernel(None), Code::default());
    }

    #[test]
    fn what_is_missing_is_said_once() {
        let mut code = Code::default();
        ["a", "b", "a"].into_iter().for_each(|why| code.lacks(why));
        assert_eq!(code.missing.as_deref(), Some("a; b"));
    }
}
