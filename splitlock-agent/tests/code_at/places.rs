//! Where a program's file can be: in another root, in another mount namespace, removed, replaced.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use splitlock_agent::{code::symbolizer::Symbolizer, subjects::paths::Paths};

use crate::{
    AGENT, ask, assert_exact, assert_instruction,
    programs::{Folder, Running, compile, run},
    symbolizer,
};

/// Whether a test that needs root can run; else it says so.
fn is_root(why: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "not root in CI"
        );
        eprintln!("skipped: {why} needs root");
    }
    is_root
}

/// An agent that may not follow `/proc/PID/map_files`.
fn without_map_files(folder: &Folder) -> Symbolizer<u32> {
    let script = folder.join("agent");
    let text = format!(
        "#!/bin/sh\nexec setpriv --bounding-set=-sys_admin,-checkpoint_restore {AGENT} \"$@\"\n"
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Symbolizer::of_program(script, &Paths::default())
}

/// The program, with its debug information where systems keep it, by build id.
fn with_debug_file(folder: &Folder, root: &Path) -> std::path::PathBuf {
    let program = compile(folder, "program", &["-g", "-static"]);
    let notes = Command::new("readelf")
        .arg("-n")
        .arg(&program)
        .output()
        .unwrap();
    let notes = String::from_utf8(notes.stdout).unwrap();
    let id = notes.split("Build ID: ").nth(1).unwrap();
    let id = id.split_whitespace().next().unwrap();
    let debug = root.join("usr/lib/debug/.build-id").join(&id[..2]);
    fs::create_dir_all(&debug).unwrap();
    let debug = debug.join(format!("{}.debug", &id[2..]));
    run(
        "objcopy",
        [
            "--only-keep-debug".as_ref(),
            program.as_os_str(),
            debug.as_os_str(),
        ],
    );
    run("strip", [&program]);
    program
}

#[tokio::test]
async fn in_another_root() {
    if !is_root("chroot") {
        return;
    }
    let folder = Folder::new();
    let root = folder.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    let program = with_debug_file(&folder, &root);
    fs::copy(&program, root.join("bin/program")).unwrap();
    let mut command = Command::new("/bin/program");
    let new_root = root.clone();
    // SAFETY: two system calls.
    unsafe {
        command.pre_exec(move || {
            rustix::process::chroot(&new_root)?;
            Ok(rustix::process::chdir("/")?)
        });
    }
    let running = Running::start_command(&mut command);
    let source = folder.join("program.c");
    for mut symbolizer in [symbolizer(), without_map_files(&folder)] {
        for question in [running.question(), running.question_behind()] {
            let code = ask(&mut symbolizer, question).await;
            assert_exact(&code, &running, "/bin/program", Some(&source));
        }
    }
}

#[tokio::test]
async fn in_another_mount_namespace() {
    if !is_root("a mount namespace") {
        return;
    }
    let folder = Folder::new();
    let inside = folder.join("inside");
    fs::create_dir(&inside).unwrap();
    let program = compile(&folder, "program", &["-g"]);
    let script = "mount -t tmpfs none \"$2\" && cp \"$1\" \"$2\"/ && exec \"$2\"/program";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]);
    command.args([&program, &inside]);
    let running = Running::start_command(&mut command);
    assert!(!inside.join("program").exists());
    let source = folder.join("program.c");
    let file = inside.join("program");
    for mut symbolizer in [symbolizer(), without_map_files(&folder)] {
        let code = ask(&mut symbolizer, running.question()).await;
        assert_exact(&code, &running, file.to_str().unwrap(), Some(&source));
    }
}

#[tokio::test]
async fn removed_and_replaced() {
    if !is_root("opening what is mapped") {
        return;
    }
    let folder = Folder::new();
    let program = compile(&folder, "program", &["-g"]);
    let running = Running::start(&program);
    let source = folder.join("program.c");
    let deleted = format!("{} (deleted)", program.display());
    fs::remove_file(&program).unwrap();
    let code = ask(&mut symbolizer(), running.question()).await;
    assert_exact(&code, &running, &deleted, Some(&source));
    // Another program, at the same path.
    let other = "-DLINKAGE=__attribute__((noinline,noclone,aligned(4096)))";
    compile(&folder, "program", &["-g", "-O3", other]);
    let code = ask(&mut symbolizer(), running.question()).await;
    assert_exact(&code, &running, &deleted, Some(&source));
    let code = ask(&mut without_map_files(&folder), running.question()).await;
    assert_instruction(&code, &running);
    assert_eq!((code.function, code.build_id), (None, None));
    assert!(code.missing.unwrap().contains("no longer at its path"));
    // And by a file that is moved over it, while it runs.
    let running = Running::start(&program);
    let file = compile(&folder, "later", &["-g"]);
    fs::rename(file, &program).unwrap();
    let code = ask(&mut symbolizer(), running.question()).await;
    assert_exact(&code, &running, &deleted, Some(&source));
}

/// A file system whose owner answers nothing.
struct Silent<'a> {
    path: &'a Path,
    _owner: fs::File,
}

impl<'a> Silent<'a> {
    fn mount(path: &'a Path) -> std::io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let owner = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")?;
        let data = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            owner.as_raw_fd()
        );
        let data = std::ffi::CString::new(data)?;
        mount("silent", path, "fuse", MountFlags::empty(), data.as_c_str())?;
        Ok(Self {
            path,
            _owner: owner,
        })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.path, UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_file_system_that_never_answers() {
    if !is_root("mounting") {
        return;
    }
    let folder = Folder::new();
    let root = folder.join("root");
    let debug = root.join("usr/lib/debug");
    fs::create_dir_all(&debug).unwrap();
    let program = compile(&folder, "program", &["-s", "-static"]);
    fs::copy(&program, root.join("program")).unwrap();
    let silent = match Silent::mount(&debug) {
        Ok(silent) => silent,
        Err(error) => {
            eprintln!("skipped: this kernel has no FUSE: {error}");
            return;
        }
    };
    let mut command = Command::new("/program");
    // SAFETY: two system calls.
    unsafe {
        command.pre_exec(move || {
            rustix::process::chroot(&root)?;
            Ok(rustix::process::chdir("/")?)
        });
    }
    let running = Running::start_command(&mut command);
    let patience = Duration::from_secs(5);
    let mut symbolizer = symbolizer().with_patience(patience);
    let start = Instant::now();
    let code = ask(&mut symbolizer, running.question()).await;
    let taken = start.elapsed();
    assert!(taken >= patience, "{taken:?}");
    assert_instruction(&code, &running);
    assert_eq!(code.file.as_deref(), Some("/program"));
    assert!(code.missing.unwrap().contains("took too long"));
    // The second time it is not tried.
    let code = ask(&mut symbolizer, running.question()).await;
    assert_instruction(&code, &running);
    assert_eq!(symbolizer.failures().overdue, 1);
    drop(silent);
}
