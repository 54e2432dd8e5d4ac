//! What is at an address, of real programs: function, source line and operand must be exactly those
//! that the program reports of itself.

mod hostile;
mod places;
mod programs;

use std::{arch::asm, ffi::OsStr, path::Path, time::Duration};

use splitlock_agent::{
    code::{Code, InFile, Operand, Question, symbolizer::Symbolizer, turns::Group},
    subjects::paths::Paths,
};

use self::programs::{Folder, Running, compile, compile_with_library, run, subject};

const AGENT: &str = env!("CARGO_BIN_EXE_splitlock-agent");

/// Asks the agent's binary.
pub fn symbolizer() -> Symbolizer<u32> {
    Symbolizer::of_program(AGENT, &Paths::default())
}

/// Asks, and waits.
pub async fn ask(symbolizer: &mut Symbolizer<u32>, question: Question) -> Code {
    let group = Group::of(question.subject, 0);
    symbolizer.ask(7, group, question, None).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), symbolizer.next());
    let (key, code) = answer.await.expect("no answer in a minute");
    assert_eq!(key, 7);
    code
}

/// Everything that the program reports, and the file as it sees it.
pub fn assert_exact(code: &Code, running: &Running, file: &str, source: Option<&Path>) {
    let source = source.map(|path| format!("{}:{}", path.display(), running.line));
    assert_eq!(code.file.as_deref(), Some(file), "{code:?}");
    assert_eq!(code.function.as_deref(), Some("add_locked"), "{code:?}");
    assert_eq!(code.source, source, "{code:?}");
    assert_instruction(code, running);
}

/// What needs no symbols.
pub fn assert_instruction(code: &Code, running: &Running) {
    assert_eq!(
        code.instruction.as_deref(),
        Some("lock add dword ptr [rdi], 1"),
        "{code:?}"
    );
    assert_eq!(code.bytes.as_deref(), Some("f0 83 07 01"));
    let operand = Operand::new(running.operand, 4);
    assert_eq!((operand.modulo_64, operand.crosses_line), (61, true));
    assert_eq!(code.operand.as_ref(), Some(&operand));
}

#[tokio::test]
async fn programs_of_all_kinds() {
    let mut symbolizer = symbolizer();
    for flags in [
        &["-g"][..],
        &["-g", "-O2"],
        &["-g", "-static"],
        &["-g", "-no-pie"],
        &["-g", "-gdwarf-4"],
        &["-g", "-gz"],
        &["-g", "-Wl,--build-id=none"],
        &["-g", "-Wl,-z,noseparate-code"],
    ] {
        let folder = Folder::new();
        let program = compile(&folder, "program", flags);
        let running = Running::start(&program);
        let source = folder.join("program.c");
        for question in [running.question(), running.question_behind()] {
            let code = ask(&mut symbolizer, question).await;
            assert_exact(&code, &running, program.to_str().unwrap(), Some(&source));
            assert_eq!(code.missing, None, "{flags:?}");
            let has_build_id = !flags.contains(&"-Wl,--build-id=none");
            assert_eq!(code.build_id.is_some(), has_build_id, "{flags:?}");
            // The bytes are where the answer says, in the file and in the function.
            let hexadecimal = |text: &Option<String>| {
                usize::from_str_radix(&text.as_ref().unwrap()[2..], 16).unwrap()
            };
            let offset = hexadecimal(&code.offset);
            let bytes = std::fs::read(&program).unwrap();
            assert_eq!(
                bytes[offset..offset + 4],
                [0xf0, 0x83, 0x07, 0x01],
                "{flags:?}"
            );
            assert!(
                (1..200).contains(&hexadecimal(&code.function_offset)),
                "{code:?}"
            );
        }
    }
    assert_eq!(symbolizer.failures(), Default::default());
}

#[tokio::test]
async fn inlined_functions_are_named() {
    let folder = Folder::new();
    let flags = [
        "-g",
        "-O2",
        "-DLINKAGE=static inline __attribute__((always_inline))",
    ];
    let program = compile(&folder, "program", &flags);
    let running = Running::start(&program);
    for question in [running.question(), running.question_behind()] {
        let code = ask(&mut symbolizer(), question).await;
        let source = folder.join("program.c");
        assert_exact(&code, &running, program.to_str().unwrap(), Some(&source));
        assert_eq!(code.function_offset, None);
    }
}

#[tokio::test]
async fn a_library_has_its_own_names() {
    let folder = Folder::new();
    let program = compile_with_library(&folder);
    let running = Running::start(&program);
    let code = ask(&mut symbolizer(), running.question()).await;
    let library = folder.join("libaccess.so");
    let source = folder.join("access.c");
    assert_exact(&code, &running, library.to_str().unwrap(), Some(&source));
    // Without anything but what others need for linking.
    run("strip", [&library]);
    let running = Running::start(&program);
    let code = ask(&mut symbolizer(), running.question()).await;
    assert_exact(&code, &running, library.to_str().unwrap(), None);
}

#[tokio::test]
async fn without_symbols_there_is_file_offset_and_instruction() {
    let folder = Folder::new();
    let program = compile(&folder, "program", &["-s"]);
    let running = Running::start(&program);
    for question in [running.question(), running.question_behind()] {
        let code = ask(&mut symbolizer(), question).await;
        assert_instruction(&code, &running);
        assert_eq!(code.file.as_deref(), program.to_str());
        assert!(code.offset.is_some() && code.build_id.is_some());
        assert_eq!((&code.function, &code.source), (&None, &None));
        let missing = code.missing.unwrap();
        assert!(missing.contains("has no symbols"), "{missing}");
    }
    // With symbols and without lines; names as their language has them.
    let mangled = "--redefine-sym=add_locked=_ZN5queue3popEPc";
    let named = compile(&folder, "named", &[]);
    run("objcopy", [OsStr::new(mangled), named.as_os_str()]);
    let running = Running::start(&named);
    let code = ask(&mut symbolizer(), running.question()).await;
    assert_eq!(
        code.function.as_deref(),
        Some("queue::pop(char*)"),
        "{code:?}"
    );
    let program = compile(&folder, "symbols", &[]);
    let running = Running::start(&program);
    let code = ask(&mut symbolizer(), running.question()).await;
    assert_exact(&code, &running, program.to_str().unwrap(), None);
}

#[tokio::test]
async fn code_of_32_bits() {
    let folder = Folder::new();
    let source = folder.join("start.s");
    // It reports what it cannot format: fixed addresses.
    let text = ".globl _start\n.data\n.balign 64\nline: .skip 128\n.text\n.type add_locked,@function\n\
        add_locked: mov $line+61, %edi\nat: lock addl $1, (%edi)\nbehind: ret\n\
        .size add_locked, .-add_locked\n\
        _start: call add_locked\n mov $4, %eax\n mov $1, %ebx\n mov $text, %ecx\n mov $1, %edx\n \
        int $0x80\nwait: mov $29, %eax\n int $0x80\n jmp wait\n.data\ntext: .ascii \"\\n\"\n";
    std::fs::write(&source, text).unwrap();
    let [object, program] = ["start.o", "program"].map(|name| folder.join(name));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    run(
        "as",
        ["--32".into(), text(&source), "-o".into(), text(&object)],
    );
    run(
        "ld",
        [
            "-m".into(),
            "elf_i386".into(),
            text(&object),
            "-o".into(),
            text(&program),
        ],
    );
    let mut child = match std::process::Command::new(&program)
        .stdout(std::process::Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: this kernel runs no 32-bit programs: {error}");
            return;
        }
    };
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    // The linker's usual place of such a program's code; its first instruction has 5 bytes.
    let symbols = std::process::Command::new("nm")
        .arg(&program)
        .output()
        .unwrap();
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    let address = |name: &str| {
        let line = symbols.lines().find(|line| line.ends_with(name)).unwrap();
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
    };
    let operand = address(" line") + 61;
    let mut registers = [0; 16];
    registers[7] = operand;
    let mut symbolizer = symbolizer();
    for (ip, is_behind) in [(address(" at"), false), (address(" behind"), true)] {
        let question = Question {
            subject: subject(child.id()),
            ip,
            is_behind,
            before: vec![],
            bytes: vec![],
            registers: Some(registers),
            in_file: None,
        };
        let code = ask(&mut symbolizer, question).await;
        assert_eq!(
            code.instruction.as_deref(),
            Some("lock add dword ptr [edi], 1"),
            "{code:?}"
        );
        assert_eq!(code.operand, Some(Operand::new(operand, 4)));
        assert_eq!(code.function.as_deref(), Some("add_locked"), "{code:?}");
        assert_eq!(code.function_offset.as_deref(), Some("0x5"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Where a locked access of this program is, its operand, and its line.
#[inline(never)]
fn lock_in_rust(operand: *mut u8) -> (u64, u64, u32) {
    let (at, behind): (u64, u64);
    let line = line!() + 3;
    // SAFETY: the operand is 4 bytes of the caller's.
    unsafe {
        asm!("lea {at}, [rip + 2f]", "lea {behind}, [rip + 3f]", "2: lock add dword ptr [rdi], 1", "3:", at = out(reg) at, behind = out(reg) behind, in("rdi") operand);
    }
    (at, behind, line)
}

#[tokio::test]
async fn this_very_program_of_rust() {
    let mut bytes = [0_u128; 16];
    let start = bytes.as_mut_ptr().cast::<u8>();
    let (at, behind, line) = lock_in_rust(start);
    let mut registers = [0; 16];
    registers[7] = start as u64;
    let mut symbolizer = symbolizer();
    for (ip, is_behind) in [(at, false), (behind, true)] {
        let question = Question {
            subject: subject(std::process::id()),
            ip,
            is_behind,
            before: vec![],
            bytes: vec![],
            registers: Some(registers),
            in_file: None,
        };
        let code = ask(&mut symbolizer, question).await;
        assert_eq!(
            code.function.as_deref(),
            Some("code_at::lock_in_rust"),
            "{code:?}"
        );
        let source = code.source.as_deref().unwrap();
        assert!(
            source.ends_with(&format!("tests/code_at/main.rs:{line}")),
            "{source}"
        );
        assert_eq!(code.operand, Some(Operand::new(start as u64, 4)));
    }
}

#[tokio::test]
async fn a_debug_file_is_found_by_its_name() {
    let folder = Folder::new();
    let program = compile(&folder, "program", &["-g", "-Wl,--build-id=none"]);
    let debug = folder.join("program.debug");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    run(
        "objcopy",
        ["--only-keep-debug".to_owned(), text(&program), text(&debug)],
    );
    run("strip", [&program]);
    run(
        "objcopy",
        [
            format!("--add-gnu-debuglink={}", debug.display()),
            text(&program),
        ],
    );
    let running = Running::start(&program);
    let source = folder.join("program.c");
    for question in [running.question(), running.question_behind()] {
        let code = ask(&mut symbolizer(), question).await;
        assert_exact(&code, &running, program.to_str().unwrap(), Some(&source));
    }
    // Another file of that name is not believed.
    let mut bytes = std::fs::read(&debug).unwrap();
    bytes.push(0);
    std::fs::write(&debug, bytes).unwrap();
    let code = ask(&mut symbolizer(), running.question()).await;
    assert_instruction(&code, &running);
    assert_eq!(code.function, None);
    // One that cannot be opened without waiting for somebody is not opened.
    std::fs::remove_file(&debug).unwrap();
    run("mkfifo", [&debug]);
    let mut symbolizer = symbolizer();
    let code = ask(&mut symbolizer, running.question()).await;
    assert_eq!((code.function, symbolizer.failures().overdue), (None, 0));
}

#[tokio::test]
async fn of_ended_processes_what_was_met_before() {
    let folder = Folder::new();
    let program = compile(&folder, "program", &["-g"]);
    let source = folder.join("program.c");
    let mut symbolizer = symbolizer();
    let mut running = Running::start(&program);
    let living = ask(&mut symbolizer, running.question()).await;
    let in_file = |code: &Code, into: u64| {
        let id = code.build_id.as_ref().unwrap();
        let mut build_id = [0; 20];
        for (number, byte) in build_id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&id[2 * number..2 * number + 2], 16).unwrap();
        }
        let offset = u64::from_str_radix(&code.offset.as_ref().unwrap()[2..], 16).unwrap();
        let offset = offset + into;
        Some(InFile { build_id, offset })
    };
    let at = in_file(&living, 0);
    let questions = [
        Question {
            in_file: at,
            ..running.question()
        },
        Question {
            in_file: in_file(&living, 4),
            ..running.question_behind()
        },
    ];
    running.end();
    let ended = running;
    for question in &questions {
        let code = ask(&mut symbolizer, question.clone()).await;
        assert_exact(&code, &ended, program.to_str().unwrap(), Some(&source));
        assert_eq!(code.offset, living.offset);
        assert_eq!(code.missing.as_deref(), Some("the process has ended"));
    }
    // Another one has met nothing, but may be told the program's path.
    let [question, _] = questions;
    let mut other = crate::symbolizer();
    let code = ask(&mut other, question.clone()).await;
    assert_eq!((&code.file, &code.function), (&None, &None));
    assert_eq!(
        (code.build_id, code.offset),
        (living.build_id, living.offset)
    );
    assert!(code.missing.unwrap().contains("no file with its build id"));
    let group = Group::of(question.subject, 0);
    other
        .ask(7, group, question.clone(), program.to_str())
        .unwrap();
    let (_, code) = other.next().await;
    assert_exact(&code, &ended, program.to_str().unwrap(), Some(&source));
    // A file at that path with another build id is not it.
    compile(&folder, "program", &["-g", "-O2"]);
    other.ask(7, group, question, program.to_str()).unwrap();
    let (_, code) = other.next().await;
    assert_eq!((code.file, code.function), (None, None));
}
