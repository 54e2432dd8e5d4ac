//! Files as hostile as random bytes, and as real ones that were tampered with.

use super::*;
use crate::{
    code::{
        naming::FUNCTION_LIMIT,
        separate::{self, Roots},
    },
    subjects::names::printable_within,
};

/// Bytes of an unpacked section in the target: what is unpacked is never freed.
const UNPACKED: u64 = 16 << 10;

/// Addresses and offsets that are worth asking for: where things begin and end.
fn places(image: &Image) -> Vec<u64> {
    let elf = image.elf();
    let segments = elf.segments().flat_map(|segment| {
        let (start, size) = segment.file_range();
        [
            segment.address(),
            start,
            start.wrapping_add(size).wrapping_sub(1),
        ]
    });
    let symbols = elf
        .symbols()
        .chain(elf.dynamic_symbols())
        .flat_map(|symbol| {
            [
                symbol.address(),
                symbol.address().wrapping_add(symbol.size() / 2),
            ]
        });
    let ends = [0, 1, u64::MAX, u64::MAX - 1];
    segments
        .take(16)
        .chain(symbols.take(32))
        .chain(ends)
        .collect()
}

fn interrogate(image: &Image) {
    assert!(
        image
            .build_id()
            .is_none_or(|id| (1..=64).contains(&id.len()))
    );
    let nobody = Roots {
        process: None,
        host: None,
    };
    assert!(separate::debug_file(image, Some(b"/usr/bin/x"), nobody).is_none());
    assert!(separate::shared_file(image, nobody).is_none());
    for place in places(image) {
        if let Some(symbol) = image.symbol(place) {
            assert!(symbol.start <= place && !symbol.name.is_empty());
            let shown = printable_within(symbol.demangled().as_bytes(), FUNCTION_LIMIT);
            assert!(shown.len() <= FUNCTION_LIMIT);
            let length = place - symbol.start;
            if let Some(bytes) = image.bytes(symbol.start, length) {
                assert_eq!(bytes.len() as u64, length);
            }
        }
        let _ = image.address(place);
        if let Some(found) = image.debug(place, || None) {
            assert!(found.function.is_some() || found.source.is_some());
        }
    }
}

#[test]
fn fuzz_image() {
    // One room for all inputs: what reads an image may keep it for ever.
    let room = Box::leak(vec![0_u8; 1 << 20].into_boxed_slice());
    let start: *mut u8 = room.as_mut_ptr();
    let size = room.len();
    let room = std::sync::Mutex::new(start as usize);
    bolero::check!(name = "image").for_each(move |input: &[u8]| {
        let room = room.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let length = input.len().min(size);
        // SAFETY: the room is never freed, is as large, and is held by the lock; what read the input
        // before has been dropped, but for unpacked sections, which are copies.
        let bytes: &'static [u8] = unsafe {
            let start = *room as *mut u8;
            start.copy_from_nonoverlapping(input.as_ptr(), length);
            slice::from_raw_parts(start, length)
        };
        let Ok(image) = Image::of_bytes(bytes) else {
            return;
        };
        let is_modest = |section: object::Section<'_, '_>| {
            let data = section.compressed_data();
            data.is_ok_and(|data| data.uncompressed_size <= UNPACKED)
        };
        if image.elf().sections().all(is_modest) {
            interrogate(&image);
        }
    });
}

#[test]
fn this_program() {
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let image = Image::of(&file).unwrap();
    assert!(image.has_symbols());
    let symbol = image
        .elf()
        .symbol_by_name_bytes(b"main")
        .map(|symbol| symbol.address());
    let found = image.symbol(symbol.unwrap()).unwrap();
    assert_eq!(found.name, b"main");
    assert!(Image::of_bytes(b"#!/bin/sh").is_err());
    assert!(Image::of_bytes(b"").is_err());
    assert!(Image::of_bytes(b"\x7fELF").is_err());
}
