//! The functions that a just-in-time compiler made, as it tells profilers: `/tmp/perf-PID.map`.

use std::io::{self, BufRead, BufReader, Read};

use super::maps::hexadecimal;

/// Bytes read of such a file.
const LIMIT: u64 = 64 << 20;
/// Bytes of a line; longer ones are cut, as names of functions are.
const LINE_LIMIT: usize = 4 << 10;

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first address.
    pub start: u64,
    /// What the compiler calls it.
    pub name: Vec<u8>,
}

/// The function at an address: lines `START SIZE NAME` with hexadecimal numbers. Compilers append,
/// so the last one that holds the address is it.
///
/// # Errors
/// Reading failed.
pub fn find(text: impl Read, address: u64) -> io::Result<Option<Function>> {
    let mut text = BufReader::with_capacity(32 << 10, text.take(LIMIT));
    let mut found = None;
    let mut line = vec![];
    loop {
        line.clear();
        if (&mut text)
            .take(LINE_LIMIT as u64)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(found);
        }
        if line.len() == LINE_LIMIT && line.last() != Some(&b'\n') {
            text.skip_until(b'\n')?;
        }
        if let Some((start, size, name)) = parse(line.strip_suffix(b"\n").unwrap_or(&line))
            && address
                .checked_sub(start)
                .is_some_and(|offset| offset < size)
        {
            let name = name.to_vec();
            found = Some(Function { start, name });
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut fields = line.splitn(3, |byte| *byte == b' ');
    let number = |field: &[u8]| hexadecimal(field.strip_prefix(b"0x").unwrap_or(field));
    let start = number(fields.next()?)?;
    let size = number(fields.next()?)?;
    let name = fields.next()?;
    (!name.is_empty()).then_some((start, size, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_that_holds_it() {
        let text = b"1000 20 first\n1000 10 second of two\nx\n0x2000 0x8 js\n3000 4 \n";
        let name = |address| {
            let found = find(&text[..], address).unwrap()?;
            Some(String::from_utf8(found.name).unwrap())
        };
        assert_eq!(name(0x100f).as_deref(), Some("second of two"));
        assert_eq!(name(0x1010).as_deref(), Some("first"));
        assert_eq!(name(0x2007).as_deref(), Some("js"));
        for none in [0, 0xfff, 0x1020, 0x2008, 0x3000] {
            assert_eq!(name(none), None, "{none:x}");
        }
    }

    #[test]
    fn a_long_line_ends_where_it_ends() {
        let mut text = b"1000 20 ".to_vec();
        text.extend([b'a'; 3 * LINE_LIMIT]);
        text.extend(b" 1000 20 no\n2000 1 yes\n");
        let name = |address| find(&text[..], address).unwrap().unwrap().name;
        assert!(name(0x1000).len() < LINE_LIMIT && name(0x1000).starts_with(b"aaa"));
        assert_eq!(name(0x2000), b"yes");
    }

    #[test]
    fn fuzz_perf_map() {
        bolero::check!(name = "perf_map").for_each(|text: &[u8]| {
            for address in [0, 1, u64::MAX] {
                if let Some(found) = find(text, address).unwrap() {
                    assert!(found.start <= address && !found.name.is_empty());
                }
            }
        });
    }
}
