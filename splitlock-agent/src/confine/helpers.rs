//! The processes that keep rights: the keeper, which starts the others, and these.
//!
//! They may look into other users' processes (CAP_SYS_PTRACE) and files (CAP_DAC_READ_SEARCH), so they
//! are left nothing to do with it but to read and to say.

use rustix::thread::CapabilitySet;

use super::{
    credentials,
    filter::{Allowed, bits, hide_clone3, is},
    user::User,
    worker::NAMESPACES,
};

/// What is needed to read of other users' processes: their `exe`, `fd`, `maps` and `root`; their files,
/// and cgroups by number; what is mapped, though it was removed.
fn rights() -> CapabilitySet {
    CapabilitySet::SYS_PTRACE
        | CapabilitySet::DAC_READ_SEARCH
        | if credentials::knows(CapabilitySet::CHECKPOINT_RESTORE) {
            CapabilitySet::CHECKPOINT_RESTORE
        } else {
            CapabilitySet::empty()
        }
}

/// Confines the keeper, with what it hands on to those that it starts. Gives what it could not give up,
/// in words.
pub fn confine_keeper(user: User) -> Vec<String> {
    let mut kept = credentials::give_up(user, rights());
    let filtered = hide_clone3().and_then(|()| keeper().install());
    kept.extend(filtered.err());
    kept
}

/// Confines one that the keeper has started further: it starts nobody, and writes but to whom it speaks.
pub fn confine_reader(is_symbolizer: bool) -> Result<(), String> {
    reader(is_symbolizer).install()
}

/// `openat2` takes its flags from memory, which no filter sees: it is left to whom it keeps below a
/// tenant's root. What it could open for writing is not this user's, nor root's power at hand, and
/// the limit of file sizes is 0.
fn reader(is_symbolizer: bool) -> Allowed {
    let allowed = Allowed::new()
        .living()
        .reading()
        .when(libc::SYS_fcntl, &[is(1, libc::F_GETFD as u64)])
        .when(libc::SYS_fcntl, &[is(1, libc::F_GETFL as u64)])
        .all(&[libc::SYS_open_by_handle_at]);
    if is_symbolizer {
        allowed.all(&[libc::SYS_openat2])
    } else {
        allowed
    }
}

fn keeper() -> Allowed {
    reader(true)
        // New processes, which share nothing and are in no new namespace.
        .when(
            libc::SYS_clone,
            &[bits(0, NAMESPACES | (libc::CLONE_VM as u64), 0)],
        )
        // Its own children, which are all that it has descriptors of.
        .when(libc::SYS_pidfd_send_signal, &[is(1, libc::SIGKILL as u64)])
        .when(libc::SYS_prctl, &[is(0, libc::PR_SET_PDEATHSIG as u64)])
        .when(
            libc::SYS_seccomp,
            &[is(0, libc::SECCOMP_SET_MODE_FILTER.into())],
        )
        // How the library asks for a filter.
        .when(libc::SYS_prctl, &[is(0, libc::PR_SET_NO_NEW_PRIVS as u64)])
        .all(&[
            libc::SYS_recvmsg,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_pidfd_open,
            libc::SYS_wait4,
            libc::SYS_waitid,
            libc::SYS_close_range,
            libc::SYS_dup2,
            libc::SYS_dup3,
            libc::SYS_setpriority,
            libc::SYS_getpriority,
            libc::SYS_setrlimit,
            libc::SYS_set_robust_list,
            libc::SYS_rseq,
            libc::SYS_set_tid_address,
        ])
}
