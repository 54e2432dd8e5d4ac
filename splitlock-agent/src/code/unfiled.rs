//! Code that is in no ELF file: the kernel's own in a process, and what was made at run time.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
};

use super::{
    Code,
    image::Image,
    look::{Living, read_at},
    naming::{FUNCTION_LIMIT, Named},
    perf_map,
    site::Site,
};
use crate::subjects::{SubjectId, names::printable_within, paths::Paths};

/// Bytes of a vDSO: a few pages.
const VDSO_LIMIT: u64 = 64 << 10;

/// The kernel's code in a process.
pub fn name_in_vdso(paths: &Paths, code: &mut Code, site: &mut Site, living: &Living) {
    let Living { tid, mapping, .. } = living;
    let length = (mapping.end - mapping.start).min(VDSO_LIMIT);
    let image = File::open(paths.process(*tid, "mem"))
        .ok()
        .and_then(|memory| read_at(&memory, mapping.start, length as usize))
        .and_then(|bytes| Image::of_bytes(bytes.leak()).ok());
    let Some(image) = image else {
        code.lacks("the vDSO cannot be read");
        return;
    };
    let Some(address) = image.address(site.inside() - mapping.start) else {
        return;
    };
    let symbol = image.symbol(address);
    let named = Named {
        function: symbol
            .map(|symbol| printable_within(symbol.demangled().as_bytes(), FUNCTION_LIMIT)),
        start: symbol.map(|symbol| symbol.start),
        ..Named::default()
    };
    named.write(code, site, &image, address);
}

/// Code that was made at run time, by the file that its maker may leave for profilers.
pub fn name_by_perf_map(
    paths: &Paths,
    code: &mut Code,
    site: &Site,
    living: &Living,
    subject: SubjectId,
) {
    let found = living.root.as_ref().and_then(|root| {
        let pid = innermost_pid(paths, living.tid).unwrap_or(subject.pid);
        let file = root.open(format!("/tmp/perf-{pid}.map").as_bytes()).ok()?;
        // Anybody can write to /tmp.
        let owner = file.metadata().ok()?.uid();
        let own = fs::metadata(paths.process(living.tid, "")).ok()?.uid();
        if owner != own && owner != 0 {
            return None;
        }
        perf_map::find(file, site.inside()).ok().flatten()
    });
    if let Some(function) = found {
        code.function = Some(printable_within(&function.name, FUNCTION_LIMIT));
        if let Some(distance) = site.distance() {
            let ip = site.inside() + 1 - u64::from(distance == 0) - distance as u64;
            let offset = ip.checked_sub(function.start);
            code.function_offset = offset.map(|offset| format!("{offset:#x}"));
        }
    }
}

/// The pid that a process itself sees: the last one of `NSpid`.
fn innermost_pid(paths: &Paths, tid: u32) -> Option<u32> {
    parse_innermost_pid(&fs::read(paths.process(tid, "status")).ok()?)
}

fn parse_innermost_pid(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"NStgid:"))?;
    let last = std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .last()?;
    last.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_line_is_the_innermost() {
        let status = b"Name:\tNStgid:\\n7\nTgid:\t5\nNStgid:\t5\t17\t1\nNSpid:\t6\t18\t2\n";
        assert_eq!(parse_innermost_pid(status), Some(1));
        assert_eq!(parse_innermost_pid(b"NStgid:\n"), None);
    }

    #[test]
    fn fuzz_innermost_pid() {
        bolero::check!(name = "innermost_pid").for_each(|status: &[u8]| {
            let _ = parse_innermost_pid(status);
            let first = [b"NStgid:\t5\t17\n", status].concat();
            assert_eq!(parse_innermost_pid(&first), Some(17));
        });
    }
}
