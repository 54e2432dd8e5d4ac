//! Small C programs whose place of a locked access is known exactly: they report it themselves.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use splitlock_agent::{
    code::{LONGEST_INSTRUCTION, Question},
    subjects::{SubjectId, paths::Paths, process::start_ticks},
};

/// `lock add dword ptr [rdi], 1`, at a label; and what follows it, for a debug exception.
const ACCESS: &str = r#"#include <stdio.h>
#include <stdlib.h>
struct place { void *at, *behind; int line; };
#ifndef LINKAGE
#define LINKAGE __attribute__((noinline))
#endif
LINKAGE struct place add_locked(char *operand) {
    struct place place = { .line = __LINE__ + 1 };
    asm volatile("lea 1f(%%rip), %0\n lea 2f(%%rip), %1\n 1: lock addl $1, (%2)\n 2:" : "=&r"(place.at), "=&r"(place.behind) : "D"(operand) : "memory");
    return place;
}
"#;

const MAIN: &str = r#"#include <stdio.h>
#include <stdlib.h>
#ifndef ACCESS
struct place { void *at, *behind; int line; };
struct place add_locked(char *operand);
#endif
int main(void) {
    char *line = aligned_alloc(64, 128);
    struct place place = add_locked(line + 61);
    printf("%p %p %p %d\n", place.at, place.behind, (void *)(line + 61), place.line);
    fflush(stdout);
    while (getchar() != EOF) {}
    return 0;
}
"#;

/// A folder that goes with its test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("splitlock-code-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Compiles the program in one file, with more flags. The C compiler is there wherever this crate
/// can be linked.
pub fn compile(folder: &Folder, name: &str, flags: &[&str]) -> PathBuf {
    let source = folder.join("program.c");
    fs::write(&source, format!("{ACCESS}#define ACCESS\n{MAIN}")).unwrap();
    let program = folder.join(name);
    run(
        "cc",
        [source.as_os_str(), OsStr::new("-o"), program.as_os_str()]
            .into_iter()
            .chain(flags.iter().map(OsStr::new)),
    );
    program
}

/// Compiles it with the access in a library.
pub fn compile_with_library(folder: &Folder) -> PathBuf {
    let [access, main] = ["access.c", "main.c"].map(|name| folder.join(name));
    fs::write(&access, ACCESS).unwrap();
    fs::write(&main, MAIN).unwrap();
    let [library, program] = ["libaccess.so", "program"].map(|name| folder.join(name));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    run(
        "cc",
        [
            text(&access),
            "-g".into(),
            "-shared".into(),
            "-fPIC".into(),
            "-o".into(),
            text(&library),
        ],
    );
    run(
        "cc",
        [
            text(&main),
            text(&library),
            format!("-Wl,-rpath,{}", folder.0.display()),
            "-o".into(),
            text(&program),
        ],
    );
    program
}

/// A program at work, and what it reported.
pub struct Running {
    child: Child,
    pub subject: SubjectId,
    pub at: u64,
    pub behind: u64,
    pub operand: u64,
    pub line: u32,
}

impl Running {
    pub fn start(program: &Path) -> Self {
        Self::start_command(&mut Command::new(program))
    }

    pub fn start_command(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [at, behind, operand, line] = fields[..] else {
            panic!("{line:?}");
        };
        let address = |text: &str| u64::from_str_radix(&text[2..], 16).unwrap();
        Self {
            subject: subject(child.id()),
            at: address(at),
            behind: address(behind),
            operand: address(operand),
            line: line.parse().unwrap(),
            child,
        }
    }

    /// What is at the access, as a fault would ask.
    pub fn question(&self) -> Question {
        let mut registers = [0; 16];
        registers[7] = self.operand;
        Question {
            subject: self.subject,
            ip: self.at,
            is_behind: false,
            before: vec![],
            bytes: vec![],
            registers: Some(registers),
            in_file: None,
        }
    }

    /// As a debug exception would ask, with the bytes that the kernel reads at the address.
    pub fn question_behind(&self) -> Question {
        Question {
            ip: self.behind,
            is_behind: true,
            before: vec![],
            bytes: vec![0x90; LONGEST_INSTRUCTION],
            ..self.question()
        }
    }

    pub fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn subject(pid: u32) -> SubjectId {
    SubjectId {
        pid,
        start_ticks: start_ticks(&Paths::default(), pid).unwrap(),
    }
}
