//! From a question to its answer, by looking at the process and at files. Runs in a process of its
//! own, as any of it may wait for ever, crash, or take much memory.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use super::{
    Code, InFile,
    files::{self, Root},
    instruction::Width,
    maps::{self, Mapping},
    naming::Namer,
    separate::Roots,
    site::Site,
    told::{hexadecimal, padded},
    unfiled,
    wire::{Place, Request},
};
use crate::subjects::{
    SubjectId,
    names::{PATH_LIMIT, printable_within},
    paths::Paths,
    process,
};

/// Who looks.
pub struct Looker {
    paths: Paths,
    namer: Namer,
}

/// Takes sketches: what is known so far, and what is looked at next.
pub type Tell<'a> = dyn FnMut(&Code, String) + 'a;

/// What a living process has at the address.
pub struct Living {
    /// A thread of it.
    pub tid: u32,
    /// The mapping that holds the address.
    pub mapping: Mapping,
    /// The root that it sees.
    pub root: Option<Root>,
}

/// What was found, and what is worth remembering.
pub struct Looked {
    /// The answer.
    pub code: Code,
    /// A file's build id, and where it is.
    pub learnt: Option<([u8; 20], Place)>,
}

impl Looker {
    /// Looks at this host.
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            namer: Namer::default(),
        }
    }

    /// What grew by looking: bytes of files that are mapped, and how many.
    pub fn size(&self) -> (usize, usize) {
        self.namer.size()
    }

    /// Answers.
    pub fn look(&mut self, request: &Request, tell: &mut Tell<'_>) -> Looked {
        let question = &request.question;
        let mut site = Site::of(question);
        let subject = question.subject;
        let mut sketch = Code::of_kernel(question.in_file);
        site.describe(&mut sketch);
        let mut ended = "the process has ended";
        if request.avoided.contains(&subject.label()) {
            ended = "looking at the process did not come to an end before";
        } else {
            tell(&sketch, subject.label());
            match self.living(subject, &mut site) {
                Ok(living) => {
                    let looked = self.look_at_mapped(&living, site.clone(), request, tell);
                    // Else all of it may be another's.
                    if self.lives(subject) {
                        return looked;
                    }
                }
                Err(why) => ended = why,
            }
            site = Site::of(question);
        }
        let code = self.look_at_file(site, request, ended, tell);
        Looked { code, learnt: None }
    }

    fn lives(&self, subject: SubjectId) -> bool {
        process::start_ticks(&self.paths, subject.pid)
            .is_ok_and(|start| start == subject.start_ticks)
    }

    /// What the process has at the address, and the bytes of its memory there.
    fn living(&self, subject: SubjectId, site: &mut Site) -> Result<Living, &'static str> {
        const ENDED: &str = "the process has ended";
        let (paths, pid) = (&self.paths, subject.pid);
        if !self.lives(subject) {
            return Err(ENDED);
        }
        // The first thread may have ended before the others, and with it its `maps`.
        let tid = process::living_thread(paths, pid).ok_or(ENDED)?;
        let found =
            File::open(paths.process(tid, "maps")).and_then(|text| maps::find(text, site.inside()));
        let mapping = match found {
            Ok(Some(mapping)) => mapping,
            Ok(None) if self.lives(subject) => {
                return Err("nothing is mapped at the address any more");
            }
            Err(_) if self.lives(subject) => return Err("the process's mappings cannot be read"),
            _ => return Err(ENDED),
        };
        if site.width().is_none() {
            site.set_width(width_of_process(paths, tid));
        }
        let memory = File::open(paths.process(tid, "mem")).ok();
        read_around(site, &mapping, |address, length| {
            read_at(memory.as_ref()?, address, length)
        });
        let root = Root::of_process(paths, tid).ok();
        if !self.lives(subject) {
            return Err(ENDED);
        }
        Ok(Living { tid, mapping, root })
    }

    fn look_at_mapped(
        &mut self,
        living: &Living,
        mut site: Site,
        request: &Request,
        tell: &mut Tell<'_>,
    ) -> Looked {
        let Living { tid, mapping, root } = living;
        let mut code = Code::default();
        let name = root
            .as_ref()
            .map_or(&mapping.name[..], |root| root.inside(&mapping.name));
        if !name.is_empty() {
            code.file = Some(printable_within(name, PATH_LIMIT));
        }
        let inside = site.inside();
        if !mapping.is_file() {
            if name == b"[vdso]" {
                unfiled::name_in_vdso(&self.paths, &mut code, &mut site, living);
            } else {
                code.lacks("the code is in no file");
                unfiled::name_by_perf_map(
                    &self.paths,
                    &mut code,
                    &site,
                    living,
                    request.question.subject,
                );
            }
            site.describe(&mut code);
            return Looked { code, learnt: None };
        }
        let next = format!(
            "{}:{}:{}",
            mapping.device.0, mapping.device.1, mapping.inode
        );
        let offset = mapping.offset.wrapping_add(inside - mapping.start);
        let mut sketch = code.clone();
        sketch.offset = Some(format!("{offset:#x}"));
        site.describe(&mut sketch);
        let finish = |mut code: Code, site: &Site| {
            set_offset(&mut code, offset, site);
            site.describe(&mut code);
            Looked { code, learnt: None }
        };
        if request.avoided.contains(&next) {
            code.lacks("reading the file did not come to an end before");
            return finish(code, &site);
        }
        tell(&sketch, next.clone());
        let file = match files::open_mapped(&self.paths, *tid, mapping, root.as_ref()) {
            Ok(file) => file,
            Err(why) => {
                code.lacks(&why);
                return finish(code, &site);
            }
        };
        if let Some(width) = width(&file) {
            site.set_width(width);
        }
        let from_file = |address: u64, length| {
            read_at(
                &file,
                mapping.offset.checked_add(address - mapping.start)?,
                length,
            )
        };
        read_around(&mut site, mapping, from_file);
        set_offset(&mut sketch, offset, &site);
        site.describe(&mut sketch);
        tell(&sketch, next.clone());

        let roots = (root.as_ref(), Root::at(&self.paths.rootfs).ok());
        let roots = Roots {
            process: roots.0,
            host: roots.1.as_ref(),
        };
        let mut learnt = None;
        match self.namer.image(&file) {
            Ok((key, image)) => {
                if let Some(id) = image.build_id() {
                    code.build_id = Some(hexadecimal(id));
                    let is_there = file.metadata().is_ok_and(|file| file.nlink() != 0);
                    learnt = padded(id).filter(|_| is_there).map(|id| {
                        let place = Place {
                            path: name.to_vec(),
                            subject: request.question.subject,
                        };
                        (id, place)
                    });
                }
                sketch.build_id = code.build_id.clone();
                Namer::name_by_symbol(&mut sketch, site.clone(), offset, &image);
                tell(&sketch, next);
                let changed = request.question.in_file.is_some_and(|in_file| {
                    image.build_id().and_then(padded) != Some(in_file.build_id)
                });
                if changed {
                    code.lacks("the file is another than at the trap");
                }
                self.namer
                    .name(&mut code, &mut site, offset, (key, &image), name, roots);
            }
            Err(why) => {
                code.lacks(&format!("the file {why}"));
                unfiled::name_by_perf_map(
                    &self.paths,
                    &mut code,
                    &site,
                    living,
                    request.question.subject,
                );
            }
        }
        Looked {
            learnt,
            ..finish(code, &site)
        }
    }

    /// Without the process: by the file that the kernel named.
    fn look_at_file(
        &mut self,
        mut site: Site,
        request: &Request,
        ended: &str,
        tell: &mut Tell<'_>,
    ) -> Code {
        let question = &request.question;
        let mut code = Code::of_kernel(question.in_file);
        code.lacks(ended);
        let Some(InFile { build_id, offset }) = question.in_file else {
            site.describe(&mut code);
            return code;
        };
        let name = code.build_id.clone().unwrap_or_default();
        let offset = offset.wrapping_sub(u64::from(question.is_behind));
        if request.avoided.contains(&name) {
            code.lacks("reading its file did not come to an end before");
            site.describe(&mut code);
            return code;
        }
        let mut sketch = code.clone();
        site.describe(&mut sketch);
        tell(&sketch, name);
        let host = Root::at(&self.paths.rootfs).ok();
        for place in &request.places {
            let process = self
                .lives(place.subject)
                .then(|| Root::of_process(&self.paths, place.subject.pid).ok())
                .flatten();
            for root in [process.as_ref(), host.as_ref()].into_iter().flatten() {
                let Ok(file) = root.open(&place.path) else {
                    continue;
                };
                let Ok((key, image)) = self.namer.image(&file) else {
                    continue;
                };
                if image.build_id().and_then(padded) != Some(build_id) {
                    continue;
                }
                code.file = Some(printable_within(&place.path, PATH_LIMIT));
                site.set_width(width(&file).unwrap_or(Width::Bits64));
                let needed = (site.needs_before() as u64).min(offset);
                if needed > 0
                    && let Some(bytes) = read_at(&file, offset + 1 - needed, needed as usize)
                {
                    site.set_before(bytes);
                }
                if site.needs_at() > 0
                    && let Some(bytes) = read_at(&file, offset, site.needs_at())
                {
                    site.set_at(bytes);
                }
                let roots = Roots {
                    process: process.as_ref(),
                    host: host.as_ref(),
                };
                let path = &place.path;
                self.namer
                    .name(&mut code, &mut site, offset, (key, &image), path, roots);
                set_offset(&mut code, offset, &site);
                site.describe(&mut code);
                return code;
            }
        }
        code.lacks("no file with its build id was met before");
        set_offset(&mut code, offset, &site);
        site.describe(&mut code);
        code
    }
}

/// `inside` is the offset of the instruction, or of its last byte.
fn set_offset(code: &mut Code, inside: u64, site: &Site) {
    let start = match site.distance() {
        Some(0) => inside,
        Some(distance) => (inside + 1).wrapping_sub(distance as u64),
        None => inside + 1,
    };
    code.offset = Some(format!("{start:#x}"));
}

/// Reads what the site needs, within a mapping.
fn read_around(site: &mut Site, mapping: &Mapping, read: impl Fn(u64, usize) -> Option<Vec<u8>>) {
    let inside = site.inside();
    // Not beyond the mapping, into what its owner may have put there to make readers wait.
    let left = usize::try_from(mapping.end - inside).unwrap_or(usize::MAX);
    if site.needs_at() > 0
        && let Some(bytes) = read(inside, site.needs_at().min(left))
    {
        site.set_at(bytes);
    }
    let needed = site.needs_before() as u64;
    if needed > 0 {
        let end = inside + 1;
        let start = end.saturating_sub(needed).max(mapping.start);
        let length = (end - start) as usize;
        if let Some(bytes) = read(start, length).filter(|bytes| bytes.len() == length) {
            site.set_before(bytes);
        }
    }
}

/// Up to `length` bytes; `None` if there are none.
pub fn read_at(file: &File, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => filled += count,
        }
    }
    bytes.truncate(filled);
    (filled > 0).then_some(bytes)
}

/// By the auxiliary vector that the kernel made for the program (`create_elf_tables`,
/// fs/binfmt_elf.c): numbers of 8 bytes, the first a small one, or of 4, the second an address. Needs
/// no file.
fn width_of_process(paths: &Paths, tid: u32) -> Width {
    let vector = File::open(paths.process(tid, "auxv")).ok();
    let first = vector.and_then(|vector| read_at(&vector, 0, 8));
    match first.as_deref() {
        Some([_, _, _, _, rest @ ..]) if rest.iter().any(|byte| *byte != 0) => Width::Bits32,
        _ => Width::Bits64,
    }
}

/// By the header of an ELF file: `e_machine`; x32's programs have 32-bit files of 64-bit code.
fn width(file: &File) -> Option<Width> {
    const EM_386: [u8; 2] = [3, 0];
    let header = read_at(file, 0, 20).filter(|header| header.len() == 20)?;
    header.starts_with(b"\x7fELF").then(|| {
        if header[18..20] == EM_386 {
            Width::Bits32
        } else {
            Width::Bits64
        }
    })
}
