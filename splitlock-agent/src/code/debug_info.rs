//! What DWARF tells of an address: the function, also an inlined one, and the line of its source.

use std::borrow::Cow;

use addr2line::{
    Context, Frame,
    gimli::{Dwarf, DwarfSections, EndianSlice, RunTimeEndian, SectionId},
};
use object::{Object as _, ObjectSection as _};

/// Bytes of a section that was compressed.
const UNPACKED_LIMIT: u64 = 192 << 20;

type Reader = EndianSlice<'static, RunTimeEndian>;

/// The debug information of a file.
pub struct DebugInfo(Context<Reader>);

/// What it tells of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The innermost function, demangled.
    pub function: Option<String>,
    /// Whether it is inlined there into another one.
    pub is_inlined: bool,
    /// `FILE:LINE`.
    pub source: Option<String>,
}

impl DebugInfo {
    /// Of a file; `shared` is the one that holds what several files have in common (`dwz`).
    /// `None` where there is none, or it is damaged.
    pub fn of(elf: &object::File<'static>, shared: Option<&object::File<'static>>) -> Option<Self> {
        elf.section_by_name(".debug_info")?;
        let mut dwarf = load(elf);
        if let Some(shared) = shared {
            dwarf.set_sup(load(shared));
        }
        Context::from_dwarf(dwarf).ok().map(Self)
    }

    /// At an address.
    pub fn at(&self, address: u64) -> Option<Found> {
        // The next one has to be an address too: `addr2line` adds.
        address.checked_add(1)?;
        // What is split off into other files (`.dwo`) is not read.
        let mut frames = self.0.find_frames(address).skip_all_loads().ok()?;
        let innermost = frames.next().ok().flatten()?;
        let is_inlined =
            innermost.function.is_some() && frames.next().is_ok_and(|outer| outer.is_some());
        let Frame {
            function, location, ..
        } = innermost;
        let source = location.and_then(|location| {
            let line = location.line.filter(|line| *line != 0)?;
            Some(format!("{}:{line}", location.file?))
        });
        let function = function.and_then(|name| name.demangle().ok().map(Cow::into_owned));
        (function.is_some() || source.is_some()).then_some(Found {
            function,
            is_inlined,
            source,
        })
    }
}

fn load(elf: &object::File<'static>) -> Dwarf<Reader> {
    let endian = if elf.is_little_endian() {
        RunTimeEndian::Little
    } else {
        RunTimeEndian::Big
    };
    let sections = DwarfSections::load(|id| Ok::<_, ()>(section(elf, id)));
    let sections = sections.unwrap_or_default();
    sections.borrow(|bytes| EndianSlice::new(bytes, endian))
}

/// A section's bytes, unpacked; none where it is missing, damaged or too large.
fn section(elf: &object::File<'static>, id: SectionId) -> &'static [u8] {
    let found = elf.section_by_name(id.name()).and_then(|section| {
        let data = section.compressed_data().ok()?;
        let is_packed = data.format != object::CompressionFormat::None;
        if is_packed && data.uncompressed_size > UNPACKED_LIMIT {
            return None;
        }
        data.decompress().ok()
    });
    match found {
        Some(Cow::Borrowed(bytes)) => bytes,
        Some(Cow::Owned(bytes)) => bytes.leak(),
        None => &[],
    }
}
