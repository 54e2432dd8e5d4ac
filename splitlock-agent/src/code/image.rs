//! An ELF file in memory: where its offsets are loaded, its symbols, its debug information.
//!
//! Nothing here is freed: the process that does this is replaced by a new one before it has grown
//! (see [`super::child`]). That makes all of it `'static`, without bookkeeping of who refers to whom.

use std::{cell::OnceCell, fs::File, ptr, slice};

use addr2line::demangle_auto;
use object::{
    Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind,
    SymbolSection,
};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::debug_info::{DebugInfo, Found};

/// Bytes of the largest file that is looked at.
const LIMIT: u64 = 4 << 30;

/// An ELF file.
pub struct Image {
    elf: object::File<'static>,
    whole: &'static [u8],
    debug: OnceCell<Option<DebugInfo>>,
}

/// A symbol of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its address in the file.
    pub start: u64,
    /// Its name, mangled.
    pub name: &'static [u8],
}

impl Symbol {
    /// Its name as its language has it.
    pub fn demangled(&self) -> String {
        let name = String::from_utf8_lossy(self.name);
        // `name@VERSION` and `name@@VERSION` of dynamic symbols.
        let name = match name.find('@') {
            Some(end) if end > 0 => name[..end].to_owned().into(),
            _ => name,
        };
        demangle_auto(name, None).into_owned()
    }
}

impl Image {
    /// Maps a file. A file that is made shorter afterwards kills who reads it (SIGBUS), and one that
    /// is changed may be read as nonsense.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn of(file: &File) -> Result<Self, String> {
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        if size == 0 {
            return Err("is empty".to_owned());
        }
        let length = usize::try_from(size)
            .ok()
            .filter(|_| size <= LIMIT)
            .ok_or("is too large to be looked at")?;
        // SAFETY: the mapping is new, and is never unmapped. That others may write to the file is
        // what makes this process one that may die.
        let bytes: &'static [u8] = unsafe {
            let start = mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                file,
                0,
            )
            .map_err(|error| format!("cannot be mapped: {error}"))?;
            slice::from_raw_parts(start.cast(), length)
        };
        Self::of_bytes(bytes)
    }

    /// From bytes.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn of_bytes(bytes: &'static [u8]) -> Result<Self, String> {
        if !bytes.starts_with(b"\x7fELF") {
            return Err("is no ELF file".to_owned());
        }
        let elf = object::File::parse(bytes).map_err(|error| format!("is damaged: {error}"))?;
        Ok(Self {
            elf,
            whole: bytes,
            debug: OnceCell::new(),
        })
    }

    /// All of the file.
    pub const fn whole(&self) -> &'static [u8] {
        self.whole
    }

    /// What reads it.
    pub const fn elf(&self) -> &object::File<'static> {
        &self.elf
    }

    /// Its GNU build id.
    pub fn build_id(&self) -> Option<&'static [u8]> {
        let id = self.elf.build_id().ok().flatten()?;
        (!id.is_empty() && id.len() <= 64).then_some(id)
    }

    /// The address at which a byte of the file is loaded, before it is moved at random.
    pub fn address(&self, offset: u64) -> Option<u64> {
        self.elf.segments().find_map(|segment| {
            let (start, size) = segment.file_range();
            let into = offset.checked_sub(start).filter(|into| *into < size)?;
            segment.address().checked_add(into)
        })
    }

    /// The bytes at an address, if the file has them.
    pub fn bytes(&self, start: u64, length: u64) -> Option<&'static [u8]> {
        let mut segments = self.elf.segments();
        segments.find_map(|segment| segment.data_range(start, length).ok().flatten())
    }

    /// The function at an address, from `.symtab`, else from `.dynsym`.
    pub fn symbol(&self, address: u64) -> Option<Symbol> {
        best(self.elf.symbols(), address)
            .or_else(|| best(self.elf.dynamic_symbols(), address))
            .filter(|symbol| symbol.size() != 0 || self.is_one_section(symbol, address))
            .and_then(|symbol| {
                let name = symbol.name_bytes().ok().filter(|name| !name.is_empty())?;
                let start = symbol.address();
                Some(Symbol { start, name })
            })
    }

    /// Whether a symbol without a size is in the section that holds an address.
    fn is_one_section(&self, symbol: &object::Symbol<'static, '_>, address: u64) -> bool {
        let section = symbol
            .section_index()
            .and_then(|index| self.elf.section_by_index(index).ok());
        section.is_some_and(|section| {
            let into = address.checked_sub(section.address());
            into.is_some_and(|into| into < section.size())
        })
    }

    /// Whether it has symbols of all functions.
    pub fn has_symbols(&self) -> bool {
        self.elf.symbols().next().is_some()
    }

    /// Whether it has debug information.
    pub fn has_debug_info(&self) -> bool {
        self.elf.section_by_name(".debug_info").is_some()
    }

    /// What debug information tells of an address; `shared` finds the file whose parts it shares
    /// with others, if it names one.
    pub fn debug(&self, address: u64, shared: impl FnOnce() -> Option<Self>) -> Option<Found> {
        let debug = self.debug.get_or_init(|| {
            let shared = shared();
            DebugInfo::of(&self.elf, shared.as_ref().map(Self::elf))
        });
        debug.as_ref()?.at(address)
    }
}

/// The symbol that holds an address. One without a size, as assemblers make, holds what follows it
/// in its section, if no other does.
fn best<'a>(
    symbols: impl Iterator<Item = object::Symbol<'static, 'a>>,
    address: u64,
) -> Option<object::Symbol<'static, 'a>> {
    let mut best = None;
    for symbol in symbols {
        let start = symbol.address();
        let is_code = match symbol.kind() {
            SymbolKind::Text => true,
            SymbolKind::Label | SymbolKind::Unknown => {
                matches!(symbol.section(), SymbolSection::Section(_))
            }
            _ => false,
        };
        if !is_code || start > address {
            continue;
        }
        let holds = address - start < symbol.size();
        if !holds && symbol.size() != 0 {
            continue;
        }
        let rank = (
            holds,
            start,
            symbol.kind() == SymbolKind::Text,
            symbol.is_global(),
            !symbol.is_weak(),
        );
        if best.as_ref().is_none_or(|(other, _)| rank > *other) {
            best = Some((rank, symbol));
        }
    }
    best.map(|(_, symbol)| symbol)
}

#[cfg(test)]
mod tests;
