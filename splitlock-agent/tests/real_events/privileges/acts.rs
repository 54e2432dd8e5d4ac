//! What a process tries to do after it has given up its rights as the agent's do; a child of the test.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    process::ExitCode,
    ptr,
};

use splitlock_agent::confine::{
    helpers,
    user::User,
    worker::{Needs, confine},
};

/// Whose rights it has.
pub const ROLES: [&str; 4] = ["root", "worker", "keeper", "resolver"];

/// Tries everything as one of [`ROLES`], and prints `ACT ERROR` for each, 0 where it could.
pub fn main(arguments: &[String]) -> ExitCode {
    if arguments == [EXECUTED] {
        println!("exec 0");
        return ExitCode::SUCCESS;
    }
    let [role, victim, folder] = arguments else {
        return ExitCode::FAILURE;
    };
    let Ok(victim) = victim.parse() else {
        return ExitCode::FAILURE;
    };
    let user = User::find(Some("61234")).expect("a number is a user");
    let kept = match role.as_str() {
        "worker" => {
            let needs = Needs {
                readable: vec!["/proc".into()],
                keeps_bpf: false,
            };
            confine(user, &needs).kept
        }
        "keeper" => helpers::confine_keeper(user),
        "resolver" => {
            let kept = helpers::confine_keeper(user);
            helpers::confine_reader(false).expect("a filter");
            kept
        }
        _ => vec![],
    };
    println!("kept {}", kept.len());
    for (act, attempt) in attempts(victim, folder) {
        let error = attempt().map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0);
        println!("{act} {error}");
    }
    // The last one, as nothing comes back where it works.
    println!("exec {}", execute());
    ExitCode::SUCCESS
}

type Attempt = Box<dyn Fn() -> io::Result<()>>;

fn attempts(victim: i32, folder: &str) -> Vec<(&'static str, Attempt)> {
    let made = format!("{folder}/made");
    let open = format!("{folder}/open-to-all");
    let closed = format!("{folder}/closed");
    vec![
        (
            "make_a_file",
            Box::new(move || File::create(&made).map(drop)),
        ),
        (
            "write_a_file",
            Box::new(move || OpenOptions::new().write(true).open(&open).map(drop)),
        ),
        ("read_a_file", Box::new(move || fs::read(&closed).map(drop))),
        ("socket", Box::new(|| connect(libc::AF_INET))),
        ("unix_socket", Box::new(|| connect(libc::AF_UNIX))),
        ("load_bpf", Box::new(load)),
        ("make_a_map", Box::new(make_map)),
        ("trace", Box::new(move || trace(victim))),
        ("read_memory", Box::new(move || read_memory(victim))),
        (
            "open_memory",
            Box::new(move || File::open(format!("/proc/{victim}/mem")).map(drop)),
        ),
        (
            "see_the_program",
            Box::new(move || fs::read_link(format!("/proc/{victim}/exe")).map(drop)),
        ),
        ("signal", Box::new(move || signal(victim))),
        ("fork", Box::new(fork)),
        ("namespace", Box::new(namespace)),
        ("become_root", Box::new(become_root)),
    ]
}

fn call(result: i64) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn signal(victim: i32) -> io::Result<()> {
    // SAFETY: the victim, a child of the test's, ignores this signal.
    call(unsafe { libc::kill(victim, libc::SIGURG) }.into())
}

fn namespace() -> io::Result<()> {
    // SAFETY: this process has one thread, and ends soon.
    call(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())
}

fn become_root() -> io::Result<()> {
    // SAFETY: the call takes a number; who is root stays root.
    call(unsafe { libc::setuid(0) }.into())
}

fn connect(family: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers; the descriptor lives as long as this process.
    call(unsafe { libc::socket(family, libc::SOCK_STREAM, 0) }.into())
}

fn fork() -> io::Result<()> {
    // SAFETY: the child does nothing but end.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: no handler of this process's runs.
        unsafe { libc::_exit(0) };
    }
    call(pid.into())?;
    // SAFETY: no status is asked for.
    call(unsafe { libc::waitpid(pid, ptr::null_mut(), 0) }.into())
}

/// `BPF_PROG_LOAD` of `return 0`, a socket filter: `union bpf_attr` (uapi/linux/bpf.h).
fn load() -> io::Result<()> {
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let mut attributes = [0_u64; 16];
    // prog_type 1, insn_cnt 2.
    attributes[0] = 1 | (2 << 32);
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = license.as_ptr() as u64;
    bpf(5, &attributes)
}

/// `BPF_MAP_CREATE` of an array of one number.
fn make_map() -> io::Result<()> {
    let mut attributes = [0_u64; 16];
    attributes[0] = 2 | (4 << 32);
    attributes[1] = 4 | (1 << 32);
    bpf(0, &attributes)
}

fn bpf(command: i32, attributes: &[u64; 16]) -> io::Result<()> {
    // SAFETY: the attributes and what they point to outlive the call.
    call(unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), 128) })
}

fn trace(victim: i32) -> io::Result<()> {
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: seizing does not stop the victim; it ends with this process.
    call(unsafe { libc::ptrace(libc::PTRACE_SEIZE, victim, none, none) })
}

fn read_memory(victim: i32) -> io::Result<()> {
    let mut own = [0_u8; 8];
    let maps = fs::read_to_string(format!("/proc/{victim}/maps")).unwrap_or_default();
    let start = maps
        .lines()
        .find_map(|line| usize::from_str_radix(line.split('-').next()?, 16).ok());
    let local = libc::iovec {
        iov_base: own.as_mut_ptr().cast(),
        iov_len: own.len(),
    };
    let remote = libc::iovec {
        // Where the map is closed, any address: the right is asked for first.
        iov_base: start.unwrap_or(0x1000) as *mut _,
        iov_len: own.len(),
    };
    // SAFETY: the local vector is of this frame.
    call(
        unsafe { libc::process_vm_readv(victim, &raw const local, 1, &raw const remote, 1, 0) }
            as i64,
    )
}

/// What this program is told that was executed.
const EXECUTED: &str = "executed";

/// Executes this very program, which prints a line: another may not be there.
fn execute() -> i32 {
    let words = ["/proc/self/exe", "act", EXECUTED].map(|word| CString::new(word).expect("no NUL"));
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: the words and the list end with NULs.
    unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
    io::Error::last_os_error().raw_os_error().unwrap_or(-1)
}
