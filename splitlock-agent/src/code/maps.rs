//! What is mapped at an address of a process: a line of `/proc/PID/maps`.

use std::io::{self, BufRead, BufReader, Read};

/// Bytes read of a `maps`. A process has 65,530 mappings unless `vm.max_map_count` was raised, some
/// 100 bytes each.
const LIMIT: u64 = 64 << 20;

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Major and minor number of the device that the file is on.
    pub device: (u32, u32),
    /// The file's inode; 0 without a file.
    pub inode: u64,
    /// The file as the kernel names it, or a word in brackets, or nothing.
    pub name: Vec<u8>,
}

impl Mapping {
    /// Whether a file is behind it.
    pub const fn is_file(&self) -> bool {
        self.inode != 0
    }
}

/// The mapping of an address, from the text of a `maps`, whose lines are in the order of addresses.
///
/// # Errors
/// Reading failed; the process may have ended.
pub fn find(text: impl Read, address: u64) -> io::Result<Option<Mapping>> {
    let mut text = BufReader::with_capacity(32 << 10, text.take(LIMIT));
    let mut line = vec![];
    loop {
        line.clear();
        if text.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let Some(mapping) = parse(line.strip_suffix(b"\n").unwrap_or(&line)) else {
            continue;
        };
        if address < mapping.end {
            return Ok((mapping.start <= address).then_some(mapping));
        }
    }
}

/// `START-END PERMISSIONS OFFSET MAJOR:MINOR INODE NAME` (`show_map_vma`, fs/proc/task_mmu.c). The
/// name may hold anything but a newline.
fn parse(line: &[u8]) -> Option<Mapping> {
    let (range, rest) = field(line)?;
    let (_permissions, rest) = field(rest)?;
    let (offset, rest) = field(rest)?;
    let (device, rest) = field(rest)?;
    let (inode, name) = field(rest)?;
    let (start, end) = split(range, b'-')?;
    let (major, minor) = split(device, b':')?;
    Some(Mapping {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        offset: hexadecimal(offset)?,
        device: (
            hexadecimal(major)?.try_into().ok()?,
            hexadecimal(minor)?.try_into().ok()?,
        ),
        inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
        name: name[name
            .iter()
            .position(|byte| *byte != b' ')
            .unwrap_or(name.len())..]
            .to_vec(),
    })
}

/// Up to a space, and what is behind it.
fn field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    match text.iter().position(|byte| *byte == b' ') {
        Some(end) => Some((&text[..end], &text[end + 1..])),
        None if text.is_empty() => None,
        None => Some((text, &[])),
    }
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == at)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A number without a sign, which the standard library would take.
pub(super) fn hexadecimal(text: &[u8]) -> Option<u64> {
    if !text.first()?.is_ascii_hexdigit() {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55d0a0000000-55d0a0002000 r--p 00000000 fe:00 1234                       /usr/bin/a b
55d0a0002000-55d0a0009000 r-xp 00002000 fe:00 1234                       /usr/bin/a b
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7f0000002000-7f0000003000 r-xp 00000000 00:01 99                         /memfd:x (deleted)
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn the_mapping_of_an_address() {
        let find = |address| find(MAPS, address).unwrap();
        let code = find(0x55d0_a000_2010).unwrap();
        assert_eq!(
            code,
            Mapping {
                start: 0x55d0_a000_2000,
                end: 0x55d0_a000_9000,
                offset: 0x2000,
                device: (0xfe, 0),
                inode: 1234,
                name: b"/usr/bin/a b".to_vec(),
            }
        );
        assert!(code.is_file());
        assert_eq!(find(0x55d0_a000_1fff).unwrap().offset, 0);
        let anonymous = find(0x7f00_0000_0fff).unwrap();
        assert_eq!((anonymous.is_file(), anonymous.name), (false, vec![]));
        assert_eq!(find(0x7f00_0000_2000).unwrap().name, b"/memfd:x (deleted)");
        assert_eq!(find(0x7ffd_0000_0000).unwrap().name, b"[stack]");
        for unmapped in [0, 0x7f00_0000_1000, 0x7ffd_0002_1000, u64::MAX] {
            assert_eq!(find(unmapped), None, "{unmapped:x}");
        }
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        let text = [&b"x\n\n1-2\n+1-+2 r 0 0:0 0\n"[..], MAPS].concat();
        assert!(find(&text[..], 0x7f00_0000_0000).unwrap().is_some());
    }

    #[test]
    fn fuzz_maps() {
        bolero::check!(name = "maps").for_each(|text: &[u8]| {
            for address in [0, 1, 0x10, u64::MAX] {
                if let Some(found) = find(text, address).unwrap() {
                    assert!((found.start..found.end).contains(&address));
                }
            }
            // A name does not reach into the fields before it.
            let name: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\n').collect();
            let line = [b"10-20 r-xp 00000030 08:01 7 /", &name[..], b"\n"].concat();
            let found = find(&line[..], 0x10).unwrap().unwrap();
            assert_eq!((found.offset, found.inode), (0x30, 7));
            assert_eq!(found.name, [b"/", &name[..]].concat());
        });
    }

    #[test]
    fn of_this_process() {
        let here = of_this_process as *const () as u64;
        let maps = std::fs::File::open("/proc/self/maps").unwrap();
        let found = find(maps, here).unwrap().unwrap();
        let own = std::env::current_exe().unwrap();
        assert_eq!(found.name, own.as_os_str().as_encoded_bytes());
    }
}
