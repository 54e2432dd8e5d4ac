//! Files that are made to hurt who reads them. This process maps them as a tenant would, and asks
//! what is in them.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    ptr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use splitlock_agent::code::Question;

use crate::{
    ask,
    programs::{Folder, Running, compile, subject},
    symbolizer,
};

const PAGE: u64 = 4096;

/// A file that this process has mapped as code.
struct Mapped {
    start: u64,
    length: usize,
}

impl Mapped {
    fn of(file: &File, offset: u64, length: usize) -> Self {
        let (read, flags) = (ProtFlags::READ | ProtFlags::EXEC, MapFlags::SHARED);
        // SAFETY: a new mapping that nobody looks into.
        let start = unsafe { mmap(ptr::null_mut(), length, read, flags, file, offset) }.unwrap();
        Self {
            start: start as u64,
            length,
        }
    }

    fn question(&self, into: u64) -> Question {
        Question {
            subject: subject(std::process::id()),
            ip: self.start + into,
            is_behind: false,
            before: vec![],
            bytes: b"\xf0\xff\x07".to_vec(),
            registers: None,
            in_file: None,
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { munmap(self.start as *mut _, self.length) }.unwrap();
    }
}

fn create(path: &Path, bytes: &[u8]) -> File {
    fs::write(path, bytes).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    *state >> 33
}

#[tokio::test]
async fn damaged_files() {
    let folder = Folder::new();
    let whole = fs::read(compile(&folder, "program", &["-g"])).unwrap();
    let mut symbolizer = symbolizer();
    let mut state = 1;
    for number in 0..200_usize {
        let mut bytes = whole.clone();
        match number {
            0 => bytes.truncate(PAGE as usize + 7),
            1 => bytes = vec![0; PAGE as usize],
            2 => bytes = [b"\x7fELF", &[0xff; PAGE as usize][..]].concat(),
            // Header and tables of sections first, then anything.
            _ => {
                let near_the_end = bytes.len() - 64 * 40;
                for _ in 0..8 {
                    let place = match number % 3 {
                        0 => random(&mut state) as usize % 0x400,
                        1 => near_the_end + random(&mut state) as usize % (64 * 40),
                        _ => random(&mut state) as usize % bytes.len(),
                    };
                    bytes[place] = random(&mut state) as u8;
                }
            }
        }
        let path = folder.join("damaged");
        let _ = fs::remove_file(&path);
        let file = create(&path, &bytes);
        let mapped = Mapped::of(&file, PAGE, PAGE as usize);
        let code = ask(&mut symbolizer, mapped.question(0x169)).await;
        // Whatever the file is, this is known without it.
        assert_eq!(code.file.as_deref(), path.to_str(), "{number}: {code:?}");
        assert_eq!(
            code.instruction.as_deref(),
            Some("lock inc dword ptr [rdi]")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_made_shorter_while_it_is_read() {
    let folder = Folder::new();
    let program = compile(&folder, "program", &["-g", "-static"]);
    let whole = fs::read(&program).unwrap();
    let stop = AtomicBool::new(false);
    let mut symbolizer = symbolizer();
    let path = folder.join("changing");
    let file = create(&path, &whole);
    let mapped = Mapped::of(&file, PAGE, PAGE as usize);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                file.set_len(0).unwrap();
                file.write_all_at(&whole, 0).unwrap();
            }
        });
        let runtime = tokio::runtime::Handle::current();
        let until = Instant::now() + Duration::from_secs(20);
        // Until it has killed one that read it, as reading behind a file's end does (SIGBUS).
        while symbolizer.failures().died == 0 && Instant::now() < until {
            let code = tokio::task::block_in_place(|| {
                runtime.block_on(ask(&mut symbolizer, mapped.question(0x100)))
            });
            assert_eq!(code.file.as_deref(), path.to_str(), "{code:?}");
            assert_eq!(
                code.instruction.as_deref(),
                Some("lock inc dword ptr [rdi]")
            );
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(symbolizer.failures().died, 1);
    // It is not read again, and nothing else suffers.
    let code = ask(&mut symbolizer, mapped.question(0x100)).await;
    let missing = code.missing.unwrap();
    assert!(
        missing.contains("did not come to an end before"),
        "{missing}"
    );
    let running = Running::start(&program);
    let code = ask(&mut symbolizer, running.question()).await;
    assert_eq!(code.function.as_deref(), Some("add_locked"));
}

#[tokio::test]
async fn a_large_file_of_nothing() {
    const GIGABYTE: u64 = 1 << 30;
    let folder = Folder::new();
    // An ELF header, and a `.debug_info` of a gigabyte of empty units.
    let names = b"\0.debug_info\0.shstrtab\0";
    let mut bytes = vec![0; 0x400];
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |at: usize, value: u64, size: usize| {
        bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    };
    for (at, value, size) in [
        (16, 3, 2),
        (18, 62, 2),
        (20, 1, 4),
        (32, 0x40, 8),
        (40, 0x100, 8),
        (52, 64, 2),
        (54, 56, 2),
        (56, 1, 2),
        (58, 64, 2),
        (60, 3, 2),
        (62, 2, 2),
        // PT_LOAD, executable, of everything.
        (0x40, 1, 4),
        (0x44, 5, 4),
        (0x60, GIGABYTE, 8),
        (0x68, GIGABYTE, 8),
        // .debug_info: PROGBITS
        (0x140, 1, 4),
        (0x144, 1, 4),
        (0x158, 0x1000, 8),
        (0x160, GIGABYTE - 0x1000, 8),
        // .shstrtab: STRTAB
        (0x180, 13, 4),
        (0x184, 3, 4),
        (0x198, 0x300, 8),
        (0x1a0, names.len() as u64, 8),
    ] {
        put(at, value, size);
    }
    bytes[0x300..0x300 + names.len()].copy_from_slice(names);
    let path = folder.join("sparse");
    let file = create(&path, &bytes);
    file.set_len(GIGABYTE).unwrap();
    let mapped = Mapped::of(&file, 0, PAGE as usize);
    let mut symbolizer = symbolizer();
    let start = Instant::now();
    let code = ask(&mut symbolizer, mapped.question(0x10)).await;
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(code.file.as_deref(), path.to_str(), "{code:?}");
    assert_eq!(code.function, None);
    assert!(code.missing.is_some());
}

#[tokio::test]
async fn thousands_of_mappings() {
    let folder = Folder::new();
    let file = create(&folder.join("pages"), &vec![0x90; 2 * PAGE as usize]);
    // Neighbours of other offsets are not joined.
    let mappings: Vec<Mapped> = (0..20_000_u64)
        .map(|number| Mapped::of(&file, number % 2 * PAGE, PAGE as usize))
        .collect();
    let mut symbolizer = symbolizer();
    for (number, into) in [(0, 5), (19_999, 6), (10_000, 7)] {
        let start = Instant::now();
        let code = ask(&mut symbolizer, mappings[number].question(into)).await;
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        let offset = number as u64 % 2 * PAGE + into;
        assert_eq!(code.offset, Some(format!("{offset:#x}")));
        assert!(code.missing.unwrap().contains("is no ELF file"));
    }
}

#[tokio::test]
async fn code_in_no_file_is_named_by_its_maker() {
    let folder = Folder::new();
    let maker = Path::new("/tmp").join(format!("perf-{}.map", std::process::id()));
    let anonymous = {
        let flags = MapFlags::PRIVATE;
        let protection = ProtFlags::READ | ProtFlags::EXEC;
        // SAFETY: a new mapping that nobody looks into.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), 4096, protection, flags) };
        Mapped {
            start: start.unwrap() as u64,
            length: 4096,
        }
    };
    let mut symbolizer = symbolizer();
    let code = ask(&mut symbolizer, anonymous.question(0x14)).await;
    assert_eq!((&code.file, &code.function), (&None, &None));
    assert_eq!(code.missing.as_deref(), Some("the code is in no file"));
    assert_eq!(
        code.instruction.as_deref(),
        Some("lock inc dword ptr [rdi]")
    );
    let mut map = File::create(&maker).unwrap();
    writeln!(map, "{:x} 20 made\x1b[2J up", anonymous.start + 0x10).unwrap();
    let code = ask(&mut symbolizer, anonymous.question(0x14)).await;
    fs::remove_file(&maker).unwrap();
    assert_eq!(code.function.as_deref(), Some("made\\x1b[2J up"));
    assert_eq!(code.function_offset.as_deref(), Some("0x4"));
    // A file's name is a tenant's as well.
    let path = folder.join("\u{202e}\x1b[2Jname");
    let file = create(&path, &[0x90; PAGE as usize]);
    let mapped = Mapped::of(&file, 0, PAGE as usize);
    let code = ask(&mut symbolizer, mapped.question(0)).await;
    let name = code.file.unwrap();
    assert!(name.ends_with("/\\xe2\\x80\\xae\\x1b[2Jname"), "{name}");
}

#[tokio::test]
async fn an_address_that_is_nothing() {
    let mut symbolizer = symbolizer();
    let mapped = {
        let folder = Folder::new();
        let file = create(&folder.join("gone"), &[0x90; PAGE as usize]);
        Mapped::of(&file, 0, PAGE as usize)
    };
    // A file that was removed is still what is mapped.
    let code = ask(&mut symbolizer, mapped.question(3)).await;
    assert!(code.file.unwrap().ends_with("/gone (deleted)"));
    let question = mapped.question(3);
    drop(mapped);
    // Below `vm.mmap_min_addr` nothing can be; what was mapped here may be another thread's by now.
    for ip in [0, 1, 0x1000, u64::MAX] {
        for is_behind in [false, true] {
            let question = Question {
                ip,
                is_behind,
                ..question.clone()
            };
            let code = ask(&mut symbolizer, question).await;
            let missing = code.missing.unwrap();
            assert!(missing.contains("nothing is mapped"), "{ip:x}: {missing}");
        }
    }
    // Another process has that pid now.
    let mut reused = question.clone();
    reused.subject.start_ticks += 1;
    let code = ask(&mut symbolizer, reused).await;
    assert_eq!(code.missing.as_deref(), Some("the process has ended"));
    assert_eq!(
        code.instruction.as_deref(),
        Some("lock inc dword ptr [rdi]")
    );
    assert_eq!(symbolizer.failures(), Default::default());
}
