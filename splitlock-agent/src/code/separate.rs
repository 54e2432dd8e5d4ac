//! Debug information that is in a file of its own: found by build id, or by the name that the
//! program's file has for it.
//!
//! The name comes from a tenant's file: it is a plain file name, looked for below the tenant's root.

use std::fs::File;

use flate2::Crc;
use object::Object as _;

use super::{
    files::{Root, folder},
    image::Image,
};

/// Bytes of a debug file whose checksum is taken: a second's work.
const CHECKED_LIMIT: usize = 512 << 20;
/// Where systems keep debug files.
const FOLDER: &[u8] = b"/usr/lib/debug";

/// Where debug files may be: below the process's root, and the host's.
#[derive(Clone, Copy, Debug)]
pub struct Roots<'a> {
    /// The process's, while it lives.
    pub process: Option<&'a Root>,
    /// The host's.
    pub host: Option<&'a Root>,
}

impl Roots<'_> {
    fn open(&self, path: &[u8]) -> impl Iterator<Item = Image> {
        [self.process, self.host]
            .into_iter()
            .flatten()
            .filter_map(move |root| image(root.open(path).ok()?))
    }
}

/// The debug file of a program's file that is at `path` below the process's root.
pub fn debug_file(image: &Image, path: Option<&[u8]>, roots: Roots<'_>) -> Option<Image> {
    by_build_id(image.build_id(), roots).or_else(|| by_link(image, path?, roots))
}

/// The file that holds what a debug file shares with others.
pub fn shared_file(image: &Image, roots: Roots<'_>) -> Option<Image> {
    let (name, build_id) = image.elf().gnu_debugaltlink().ok().flatten()?;
    // Distributions keep them in one folder; where it is from the debug file differs.
    let marker = b"/.dwz/";
    let in_folder = name
        .windows(marker.len())
        .position(|window| window == marker)
        .map(|start| [FOLDER, &name[start..]].concat());
    let named = in_folder.and_then(|path| {
        let mut found = roots.open(&path);
        found.find(|image| image.build_id() == Some(build_id))
    });
    named.or_else(|| by_build_id(Some(build_id), roots))
}

fn by_build_id(build_id: Option<&[u8]>, roots: Roots<'_>) -> Option<Image> {
    let (first, rest) = build_id?.split_first()?;
    if rest.is_empty() {
        return None;
    }
    let mut path = [FOLDER, b"/.build-id/"].concat();
    path.extend(format!("{first:02x}/").bytes());
    rest.iter()
        .for_each(|byte| path.extend(format!("{byte:02x}").bytes()));
    path.extend(b".debug");
    roots.open(&path).find(|image| image.build_id() == build_id)
}

/// `.gnu_debuglink`: a file name, and the CRC-32 of the file.
fn by_link(image: &Image, path: &[u8], roots: Roots<'_>) -> Option<Image> {
    let (name, checksum) = image.elf().gnu_debuglink().ok().flatten()?;
    if name.is_empty() || name.contains(&b'/') || matches!(name, b"." | b"..") {
        return None;
    }
    let own = folder(path);
    let own = if own == b"/" { b"" } else { own };
    let candidates = [
        [own, b"/", name].concat(),
        [own, b"/.debug/", name].concat(),
        [FOLDER, own, b"/", name].concat(),
    ];
    let root = roots.process.or(roots.host)?;
    candidates.iter().find_map(|path| {
        let file = root.open(path).ok()?;
        let candidate = Image::of(&file).ok()?;
        let is_it = match (image.build_id(), candidate.build_id()) {
            (Some(own), Some(other)) => own == other,
            _ => crc(&candidate) == Some(checksum),
        };
        is_it.then_some(candidate)
    })
}

fn crc(image: &Image) -> Option<u32> {
    let bytes = image.whole();
    if bytes.len() > CHECKED_LIMIT {
        return None;
    }
    let mut crc = Crc::new();
    crc.update(bytes);
    Some(crc.sum())
}

fn image(file: File) -> Option<Image> {
    Image::of(&file).ok()
}
