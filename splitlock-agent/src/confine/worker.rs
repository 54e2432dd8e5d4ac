//! The process that talks HTTP and keeps the table: what is left to it after the start.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::thread::CapabilitySet;

use super::{
    credentials,
    filter::{Allowed, bits, hide_clone3, is},
    user::User,
};

/// Commands of `bpf()` on what is open already (uapi/linux/bpf.h); those that load, attach, pin, or
/// open by a number are not among them.
const BPF_COMMANDS: [u32; 11] = [
    1,  // MAP_LOOKUP_ELEM
    2,  // MAP_UPDATE_ELEM
    3,  // MAP_DELETE_ELEM
    4,  // MAP_GET_NEXT_KEY
    10, // PROG_TEST_RUN: the reader of the mode of detection
    15, // OBJ_GET_INFO_BY_FD
    21, // MAP_LOOKUP_AND_DELETE_ELEM
    24, // MAP_LOOKUP_BATCH
    25, // MAP_LOOKUP_AND_DELETE_BATCH
    27, // MAP_DELETE_BATCH
    34, // LINK_DETACH
];
/// `PERF_EVENT_IOC_DISABLE` (uapi/linux/perf_event.h): at the end of an attachment.
const PERF_DISABLE: u64 = 0x2401;
/// Namespaces, `CLONE_NEW…` (uapi/linux/sched.h).
pub(super) const NAMESPACES: u64 = 0x7e02_0080;

/// What the worker needs after it has given up its rights.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Files, and folders with all that is in them, that it reads. Others of the agent's parts add
    /// theirs: what is not there is passed over.
    pub readable: Vec<PathBuf>,
    /// Whether `bpf()` refuses maps to whoever has no CAP_BPF, as kernels before 5.19 do where
    /// `kernel.unprivileged_bpf_disabled` is set.
    pub keeps_bpf: bool,
}

/// What the worker gave up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Whether there is a Landlock domain, and how whole: `full`, `partial` or `none`.
    pub landlock: &'static str,
    /// Whether seccomp filters its system calls.
    pub seccomp: bool,
    /// What it could not give up, in words.
    pub kept: Vec<String>,
}

/// Gives up the calling thread's rights, for itself and all threads that it starts. To be called while
/// it is the only one.
pub fn confine(user: User, needs: &Needs) -> Confinement {
    let left = if needs.keeps_bpf {
        CapabilitySet::BPF
    } else {
        CapabilitySet::empty()
    };
    let mut kept = credentials::give_up(user, left);
    let landlock = match restrict(&needs.readable) {
        Ok(RestrictionStatus {
            ruleset: RulesetStatus::FullyEnforced,
            ..
        }) => "full",
        Ok(RestrictionStatus {
            ruleset: RulesetStatus::PartiallyEnforced,
            ..
        }) => "partial",
        Ok(_) => {
            kept.push("the kernel has no Landlock".to_owned());
            "none"
        }
        Err(error) => {
            kept.push(format!("Landlock: {error}"));
            "none"
        }
    };
    let filtered = hide_clone3().and_then(|()| allowed().install());
    let seccomp = filtered.map_err(|error| kept.push(error)).is_ok();
    Confinement {
        landlock,
        seccomp,
        kept,
    }
}

/// All that Landlock knows of is denied, up to its sixth version (6.12), but for reading these.
fn restrict(readable: &[PathBuf]) -> Result<RestrictionStatus, RulesetError> {
    let abi = ABI::V6;
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    readable
        .iter()
        .filter_map(|path| rule(path))
        .try_fold(rules, |rules, rule| rules.add_rule(rule))?
        .restrict_self()
}

fn rule(path: &Path) -> Option<PathBeneath<PathFd>> {
    let access = if path.is_dir() {
        AccessFs::ReadFile | AccessFs::ReadDir
    } else {
        AccessFs::ReadFile.into()
    };
    Some(PathBeneath::new(PathFd::new(path).ok()?, access))
}

fn allowed() -> Allowed {
    let socketpair = is(0, libc::AF_UNIX as u64);
    let no_new_connection = |flags| bits(flags, libc::MSG_FASTOPEN as u64, 0);
    let mut allowed = Allowed::new()
        .living()
        .reading()
        // Threads, not processes.
        .when(
            libc::SYS_clone,
            &[bits(
                0,
                libc::CLONE_THREAD as u64,
                libc::CLONE_THREAD as u64,
            )],
        )
        // The ends of a conversation with a helper, and tokio's of its signals.
        .when(libc::SYS_socketpair, &[socketpair])
        .when(libc::SYS_sendto, &[no_new_connection(3)])
        .when(libc::SYS_sendmsg, &[no_new_connection(2)])
        // Whether a process or a thread is there.
        .when(libc::SYS_kill, &[is(1, 0)])
        .when(libc::SYS_tgkill, &[is(2, 0)])
        .when(libc::SYS_ioctl, &[is(1, PERF_DISABLE)])
        .when(libc::SYS_ioctl, &[is(1, libc::FIONBIO)])
        .when(libc::SYS_ioctl, &[is(1, libc::FIONREAD)])
        .all(&[
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_wait,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_eventfd2,
            libc::SYS_pipe2,
            libc::SYS_dup,
            libc::SYS_accept,
            libc::SYS_accept4,
            libc::SYS_getsockname,
            libc::SYS_getpeername,
            libc::SYS_getsockopt,
            libc::SYS_setsockopt,
            libc::SYS_shutdown,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_pidfd_open,
            libc::SYS_wait4,
            libc::SYS_waitid,
            libc::SYS_membarrier,
            libc::SYS_set_robust_list,
            libc::SYS_rseq,
            // The journal takes long lines so.
            libc::SYS_memfd_create,
        ]);
    for command in [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_ADD_SEALS,
    ] {
        allowed = allowed.when(libc::SYS_fcntl, &[is(1, command as u64)]);
    }
    for command in BPF_COMMANDS {
        allowed = allowed.when(libc::SYS_bpf, &[is(0, command.into())]);
    }
    allowed
}
