//! Addresses of kernel symbols, from `/proc/kallsyms`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

/// The kernel's symbols. Whether they have addresses depends on who opens the file, not on who reads it
/// (`kallsyms_open`, kernel/kallsyms.c).
///
/// # Errors
/// The file cannot be opened.
pub fn open() -> io::Result<File> {
    File::open("/proc/kallsyms")
}

/// Address of a data symbol of the kernel itself. `None` where the kernel does not list it
/// (data needs CONFIG_KALLSYMS_ALL) or hides addresses (`kernel.kptr_restrict`).
///
/// The kernel writes the file anew for each reading, which takes tens of milliseconds, and seconds
/// on an emulated machine.
///
/// # Errors
/// The file cannot be read.
pub fn data_address(symbols: File, name: &str) -> io::Result<Option<u64>> {
    find(BufReader::with_capacity(64 * 1024, symbols), name)
}

/// Lines are `ADDRESS TYPE NAME`, with `\t[MODULE]` after the name of a module's symbol.
fn find(mut lines: impl BufRead, name: &str) -> io::Result<Option<u64>> {
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(address), Some(kind), Some(symbol), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        if symbol == name && matches!(kind, "d" | "D" | "b" | "B" | "r" | "R") {
            return Ok(u64::from_str_radix(address, 16)
                .ok()
                .filter(|address| *address != 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_data() {
        let text = "ffffffff81000000 T sld_state_text\n\
                    ffffffffc0000000 d sld_state\t[module]\n\
                    ffffffff81000010 t sld_state\n\
                    ffffffff82000020 d sld_state\n";
        assert_eq!(
            find(text.as_bytes(), "sld_state").unwrap(),
            Some(0xffff_ffff_8200_0020)
        );
        assert_eq!(find(text.as_bytes(), "missing").unwrap(), None);
    }

    #[test]
    fn a_hidden_address_is_none() {
        let text = "0000000000000000 d sld_state\n";
        assert_eq!(find(text.as_bytes(), "sld_state").unwrap(), None);
        assert_eq!(find("x\n\n".as_bytes(), "sld_state").unwrap(), None);
    }

    #[test]
    fn fuzz_kallsyms() {
        bolero::check!(name = "kallsyms").for_each(|text: &[u8]| {
            let found = find(text, "sld_state");
            if let Ok(Some(address)) = found {
                assert_ne!(address, 0);
            }
            // The first line with the symbol counts, whatever is behind it.
            let first = [b"ffffffff82000020 d sld_state\n", text].concat();
            assert_eq!(
                find(&first[..], "sld_state").unwrap(),
                Some(0xffff_ffff_8200_0020)
            );
        });
    }
}
