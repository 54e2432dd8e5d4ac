//! Seccomp filters from lists of what is allowed. What is not gives EPERM: a library that tries something
//! new goes on without it.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// What a process may ask of the kernel.
#[derive(Debug, Default)]
pub struct Allowed(BTreeMap<i64, Vec<SeccompRule>>);

/// A condition on an argument: which one, how it is compared, and with what.
pub type When = (u8, SeccompCmpOp, u64);

/// Some bits of an argument are as given.
pub const fn bits(argument: u8, mask: u64, value: u64) -> When {
    (argument, SeccompCmpOp::MaskedEq(mask), value)
}

/// An argument is this.
pub const fn is(argument: u8, value: u64) -> When {
    (argument, SeccompCmpOp::Eq, value)
}

/// What opens for writing, makes, empties or hides a file: flags of `open`.
const WRITING: i32 = libc::O_ACCMODE
    | libc::O_CREAT
    | libc::O_TRUNC
    | libc::O_APPEND
    // The bit of it that is not O_DIRECTORY.
    | (libc::O_TMPFILE & !libc::O_DIRECTORY);

impl Allowed {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// These system calls, whatever their arguments.
    #[must_use]
    pub fn all(mut self, calls: &[i64]) -> Self {
        self.0.extend(calls.iter().map(|call| (*call, vec![])));
        self
    }

    /// A system call where all the conditions hold; given again, where one group of them does.
    #[must_use]
    pub fn when(mut self, call: i64, conditions: &[When]) -> Self {
        let conditions = conditions.iter().filter_map(|(argument, operator, value)| {
            // Flags, commands and numbers of descriptors: ints, whose upper half the kernel ignores.
            SeccompCondition::new(*argument, Dword, operator.clone(), *value).ok()
        });
        if let Ok(rule) = SeccompRule::new(conditions.collect()) {
            self.0.entry(call).or_default().push(rule);
        }
        self
    }

    /// Opening files to read them.
    #[must_use]
    pub fn reading(self) -> Self {
        self.when(libc::SYS_openat, &[bits(2, WRITING as u64, 0)])
            .when(libc::SYS_open, &[bits(1, WRITING as u64, 0)])
            .all(&[
                libc::SYS_read,
                libc::SYS_pread64,
                libc::SYS_readv,
                libc::SYS_close,
                libc::SYS_fstat,
                libc::SYS_stat,
                libc::SYS_lstat,
                libc::SYS_newfstatat,
                libc::SYS_statx,
                libc::SYS_statfs,
                libc::SYS_fstatfs,
                libc::SYS_lseek,
                libc::SYS_getdents64,
                libc::SYS_readlink,
                libc::SYS_readlinkat,
                libc::SYS_access,
                libc::SYS_faccessat,
            ])
    }

    /// What every program does: memory without code in it, time, its own signals and limits, its end.
    #[must_use]
    pub fn living(self) -> Self {
        let own = std::process::id().into();
        self.when(libc::SYS_mmap, &[bits(2, libc::PROT_EXEC as u64, 0)])
            .when(libc::SYS_mprotect, &[bits(2, libc::PROT_EXEC as u64, 0)])
            .when(libc::SYS_prlimit64, &[is(0, 0)])
            .when(libc::SYS_prctl, &[is(0, libc::PR_SET_NAME as u64)])
            .when(libc::SYS_prctl, &[is(0, libc::PR_SET_VMA as u64)])
            // A panic that aborts.
            .when(libc::SYS_tgkill, &[is(0, own)])
            .all(&[
                libc::SYS_write,
                libc::SYS_writev,
                libc::SYS_munmap,
                libc::SYS_mremap,
                libc::SYS_madvise,
                libc::SYS_brk,
                libc::SYS_rt_sigaction,
                libc::SYS_rt_sigprocmask,
                libc::SYS_rt_sigreturn,
                libc::SYS_sigaltstack,
                libc::SYS_restart_syscall,
                libc::SYS_futex,
                libc::SYS_sched_yield,
                libc::SYS_sched_getaffinity,
                libc::SYS_nanosleep,
                libc::SYS_clock_nanosleep,
                libc::SYS_clock_gettime,
                libc::SYS_clock_getres,
                libc::SYS_gettimeofday,
                libc::SYS_time,
                libc::SYS_getcpu,
                libc::SYS_getpid,
                libc::SYS_gettid,
                libc::SYS_getppid,
                libc::SYS_getuid,
                libc::SYS_geteuid,
                libc::SYS_getgid,
                libc::SYS_getegid,
                libc::SYS_getrusage,
                libc::SYS_getrlimit,
                libc::SYS_getrandom,
                libc::SYS_uname,
                libc::SYS_sysinfo,
                libc::SYS_poll,
                libc::SYS_ppoll,
                // An older filter refuses it in a way of its own: `hide_clone3`.
                libc::SYS_clone3,
                libc::SYS_exit,
                libc::SYS_exit_group,
            ])
    }

    /// Confines the calling thread, and those that it starts, for good.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn install(self) -> Result<(), String> {
        apply(self.0, libc::EPERM)
    }

    #[cfg(test)]
    fn knows(&self, call: i64) -> bool {
        self.0.contains_key(&call)
    }
}

/// Has the C library do without `clone3`, whose flags a filter cannot see: it takes `clone` where the
/// kernel seems not to have it. To be called before [`Allowed::install`], which leaves it to this.
///
/// # Errors
/// The kernel has no seccomp filters.
pub fn hide_clone3() -> Result<(), String> {
    let mut rules = BTreeMap::new();
    rules.insert(libc::SYS_clone3, vec![]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::x86_64,
    );
    load(filter)
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<(), String> {
    load(SeccompFilter::new(
        rules,
        SeccompAction::Errno(error as u32),
        SeccompAction::Allow,
        TargetArch::x86_64,
    ))
}

fn load(filter: Result<SeccompFilter, seccompiler::BackendError>) -> Result<(), String> {
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .map_err(|error| format!("seccomp: {error}"))?;
    apply_filter(&program).map_err(|error| format!("seccomp: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_general_lets_out() {
        let allowed = Allowed::new().living().reading();
        for call in [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bpf,
            libc::SYS_execve,
            libc::SYS_kill,
            libc::SYS_clone,
            libc::SYS_unlinkat,
            libc::SYS_io_uring_setup,
        ] {
            assert!(!allowed.knows(call), "{call}");
        }
    }
}
