//! Names of addresses in ELF files, and what was read for them.

use std::{collections::HashMap, fs::File, rc::Rc};

use super::{Code, files::FileKey, image::Image, separate, separate::Roots, site::Site};
use crate::subjects::names::{PATH_LIMIT, printable_within};

/// Bytes of a function's name: those of C++ and Rust can be any length.
pub const FUNCTION_LIMIT: usize = 512;
/// Bytes of a function that are read up to an instruction in it.
const FUNCTION_BYTES: u64 = 64 << 10;
/// Addresses whose names are remembered.
const NAMED: usize = 4096;

/// Who names, and remembers.
#[derive(Default)]
pub struct Namer {
    images: HashMap<FileKey, Result<Rc<Image>, String>>,
    /// Of an image, its debug file.
    debug_files: HashMap<FileKey, Option<Rc<Image>>>,
    named: HashMap<(FileKey, u64), Named>,
    /// Bytes of all files that were looked at.
    looked_at: usize,
}

/// What a file tells of an address in it.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Printable.
    pub function: Option<String>,
    /// The function's first address, of the one that is not inlined.
    pub start: Option<u64>,
    /// Whether another one begins there, into which it is inlined.
    pub is_inlined: bool,
    /// `FILE:LINE`, printable.
    pub source: Option<String>,
    /// Whether all functions would have names.
    pub has_symbols: bool,
}

impl Namer {
    /// Bytes of all files that are mapped, and how many there are.
    pub fn size(&self) -> (usize, usize) {
        let files = self.images.len() + self.debug_files.len();
        (self.looked_at, files)
    }

    /// The file, in memory.
    pub fn image(&mut self, file: &File) -> Result<(FileKey, Rc<Image>), String> {
        let key = FileKey::of(file).map_err(|error| format!("cannot be read: {error}"))?;
        let looked_at = &mut self.looked_at;
        let image = self.images.entry(key).or_insert_with(|| {
            let image = Image::of(file)?;
            *looked_at += image.whole().len();
            Ok(Rc::new(image))
        });
        image.clone().map(|image| (key, image))
    }

    /// Names an address of a file by its offset; `path` is the file's, below its process's root.
    pub fn name(
        &mut self,
        code: &mut Code,
        site: &mut Site,
        offset: u64,
        (key, image): (FileKey, &Image),
        path: &[u8],
        roots: Roots<'_>,
    ) {
        let Some(address) = image.address(offset) else {
            code.lacks("the file loads nothing from that offset");
            return;
        };
        let named = match self.named.get(&(key, address)) {
            Some(named) => named.clone(),
            None => {
                let named = self.named(address, (key, image), path, roots);
                if self.named.len() >= NAMED {
                    self.named.clear();
                }
                self.named.insert((key, address), named.clone());
                named
            }
        };
        named.write(code, site, image, address);
    }

    /// Names an address by the symbols of its file alone, which takes a moment, where debug
    /// information may take seconds.
    pub fn name_by_symbol(code: &mut Code, mut site: Site, offset: u64, image: &Image) {
        let Some(address) = image.address(offset) else {
            return;
        };
        let Some(symbol) = image.symbol(address) else {
            return;
        };
        let named = Named {
            function: Some(printable_within(
                symbol.demangled().as_bytes(),
                FUNCTION_LIMIT,
            )),
            start: Some(symbol.start),
            ..Named::default()
        };
        named.write(code, &mut site, image, address);
    }

    fn named(
        &mut self,
        address: u64,
        (key, image): (FileKey, &Image),
        path: &[u8],
        roots: Roots<'_>,
    ) -> Named {
        let debug_file = if image.has_debug_info() {
            None
        } else {
            let looked_at = &mut self.looked_at;
            let found = self.debug_files.entry(key).or_insert_with(|| {
                let found = separate::debug_file(image, Some(path), roots)?;
                *looked_at += found.whole().len();
                Some(Rc::new(found))
            });
            found.clone()
        };
        let source = debug_file.as_deref().unwrap_or(image);
        let symbol = image
            .symbol(address)
            .or_else(|| debug_file.as_deref()?.symbol(address));
        let found = source.debug(address, || separate::shared_file(source, roots));
        let found = found.unwrap_or_default();
        let function = found
            .function
            .or_else(|| symbol.as_ref().map(|symbol| symbol.demangled()));
        Named {
            function: function.map(|name| printable_within(name.as_bytes(), FUNCTION_LIMIT)),
            start: symbol.map(|symbol| symbol.start),
            is_inlined: found.is_inlined,
            source: found
                .source
                .map(|source| printable_within(source.as_bytes(), PATH_LIMIT)),
            has_symbols: image.has_symbols() || source.has_symbols() || source.has_debug_info(),
        }
    }
}

impl Named {
    /// Writes names into an answer, and has the site find the instruction from the function's begin.
    pub fn write(self, code: &mut Code, site: &mut Site, image: &Image, address: u64) {
        let Self {
            function,
            start,
            is_inlined,
            source,
            has_symbols,
        } = self;
        // Behind an instruction, `address` is that of its last byte.
        let is_behind = site.distance() != Some(0);
        let end = address.saturating_add(u64::from(is_behind));
        if let Some(start) = start.filter(|start| is_behind && end - start <= FUNCTION_BYTES)
            && let Some(bytes) = image.bytes(start, end - start)
        {
            site.set_function(bytes);
        }
        if function.is_none() {
            code.lacks(if has_symbols {
                "the file names no function there"
            } else {
                "the file has no symbols, and no debug file was found"
            });
        }
        code.function = function;
        code.source = source;
        // An inlined function has no begin that an offset could count from.
        if let (Some(start), Some(distance), false) = (start, site.distance(), is_inlined) {
            let offset = end.wrapping_sub(distance as u64).checked_sub(start);
            code.function_offset = offset.map(|offset| format!("{offset:#x}"));
        }
    }
}
