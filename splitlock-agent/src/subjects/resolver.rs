//! Asks `/proc` who a subject is.

use std::io;

use super::{
    SubjectId,
    cgroup::{self, CgroupIdentity, Runtime, by_id::CgroupsById},
    identity::{Fact, Identity, Missing, Question, Seen, Why},
    names::{PATH_LIMIT, printable, printable_within},
    paths::Paths,
    process,
    vmm::name_vm,
};

/// Bytes of a command line that an identity carries, before what is not printable is escaped.
const COMMAND_LINE_SHOWN: usize = 256;
/// Ancestors that are asked for a container's runtime.
const ANCESTORS: usize = 16;

/// Answers who a subject is. Remembers nothing of subjects.
#[derive(Debug)]
pub struct Resolver {
    paths: Paths,
    cgroups: CgroupsById,
}

impl Resolver {
    /// Of the host whose file systems are mounted there.
    pub fn new(paths: Paths) -> Self {
        let cgroups = CgroupsById::new(&paths);
        Self { paths, cgroups }
    }

    /// Where the host's file systems are.
    pub const fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Answers a question, see [`Self::identify`].
    pub fn answer(&self, question: &Question) -> Identity {
        Identity {
            is_vm: question.is_vm,
            ..self.identify(question.subject, &question.seen())
        }
    }

    /// Who a subject is, as far as it can still be learnt.
    ///
    /// What `/proc` says counts only if the pid is the subject's own after it was read, for then it
    /// was so all the time: a start time does not come back. Else the kernel side's word is all.
    /// Reading `cmdline` waits for the lock of the subject's memory map, so whoever must not wait
    /// asks from another thread.
    pub fn identify(&self, subject: SubjectId, seen: &Seen<'_>) -> Identity {
        let is_it = || {
            process::start_ticks(&self.paths, subject.pid)
                .is_ok_and(|ticks| ticks == subject.start_ticks)
        };
        // In a crowd most have ended; there is nothing to read of them.
        let thread = is_it()
            .then(|| process::living_thread(&self.paths, subject.pid))
            .flatten();
        let read = thread.map_or_else(Read::nothing, |tid| Read::new(&self.paths, tid));
        let lives = thread.is_some_and(|tid| {
            is_it() && process::is_exiting(&self.paths, tid).is_ok_and(|exiting| !exiting)
        });
        let by_id = || self.cgroup_of_id(seen.cgroup_id);
        let cgroup = lives
            .then(|| read.cgroups.as_ref().ok())
            .flatten()
            .and_then(|text| self.cgroup_of_living(text, seen.cgroup_id))
            .or_else(by_id);
        judge(subject, seen, read, cgroup, (!lives).then_some(Why::Ended))
    }

    /// Who a subject is by what the kernel side wrote down, as there is a reason not to ask `/proc`.
    /// Does not wait.
    pub fn by_kernel_alone(&self, subject: SubjectId, seen: &Seen<'_>, why: Why) -> Identity {
        let cgroup = self.cgroup_of_id(seen.cgroup_id);
        by_kernel_alone(subject, seen, cgroup, why)
    }

    /// Where the process is outside this one's cgroup namespace, `/proc` tells but the end of its
    /// path; the hierarchy's mount may be the host's and tell all of it.
    fn cgroup_of_living(&self, text: &[u8], id: u64) -> Option<CgroupIdentity> {
        cgroup::is_outside_view(text)
            .then(|| self.cgroup_of_id(id))
            .flatten()
            .or_else(|| cgroup::of_process(text))
    }

    /// `None` also for the root: that is where the ids of all processes point on a host whose
    /// processes are sorted by v1 hierarchies alone.
    fn cgroup_of_id(&self, id: u64) -> Option<CgroupIdentity> {
        let path = (id != 0).then(|| self.cgroups.path(id))?.ok()??;
        (path != b"/").then(|| cgroup::of_path(&path))
    }
}

/// Who a subject is by what the kernel side wrote down, and its cgroup if somebody knows it.
pub fn by_kernel_alone(
    subject: SubjectId,
    seen: &Seen<'_>,
    cgroup: Option<CgroupIdentity>,
    why: Why,
) -> Identity {
    judge(subject, seen, Read::nothing(), cgroup, Some(why))
}

/// What was read counts unless there is a reason for disbelief.
fn judge(
    subject: SubjectId,
    seen: &Seen<'_>,
    read: Read,
    cgroup: Option<CgroupIdentity>,
    disbelief: Option<Why>,
) -> Identity {
    let lives = disbelief.is_none();
    let mut missing = Vec::new();
    let mut miss = |fact| {
        let why = disbelief.unwrap_or(Why::Unreadable);
        missing.push(Missing { fact, why });
    };
    let mut take = |fact, read: io::Result<Vec<u8>>| {
        let read = read.ok().filter(|_| lives);
        if read.is_none() {
            miss(fact);
        }
        read
    };
    let exe = take(Fact::Exe, read.exe);
    let command_line = take(Fact::CommandLine, read.command_line);
    if cgroup.is_none() {
        miss(Fact::Cgroup);
    }
    let cgroup = cgroup.map(|mut cgroup| {
        if let Some(runtime) = read.runtime.filter(|_| lives)
            && let Some(container) = &mut cgroup.container
        {
            container.runtime.get_or_insert(runtime);
        }
        cgroup
    });
    let argv = argv(command_line.as_deref().unwrap_or_default());
    let unknown = CgroupIdentity::default();
    let vm = name_vm(
        exe.as_deref().unwrap_or_default(),
        &argv,
        seen.comm,
        cgroup.as_ref().unwrap_or(&unknown),
    );
    Identity {
        subject,
        comm: printable(seen.comm),
        exe: exe.map(|exe| printable_within(&exe, PATH_LIMIT)),
        command_line: command_line.as_deref().map(shown),
        cgroup,
        vm,
        is_vm: false,
        missing,
    }
}

/// What `/proc` said of a pid.
struct Read {
    exe: io::Result<Vec<u8>>,
    command_line: io::Result<Vec<u8>>,
    cgroups: io::Result<Vec<u8>>,
    runtime: Option<Runtime>,
}

impl Read {
    fn new(paths: &Paths, pid: u32) -> Self {
        let cgroups = process::cgroups(paths, pid);
        Self {
            exe: process::exe(paths, pid),
            command_line: process::command_line(paths, pid),
            runtime: cgroups
                .as_ref()
                .ok()
                .and_then(|text| cgroup::of_process(text))
                .and_then(|cgroup| monitor_of(paths, pid, &cgroup)),
            cgroups,
        }
    }

    fn nothing() -> Self {
        let nothing = || Err(io::ErrorKind::TimedOut.into());
        Self {
            exe: nothing(),
            command_line: nothing(),
            cgroups: nothing(),
            runtime: None,
        }
    }
}

/// The runtime of a container whose cgroup does not say, by its nearest ancestor outside it: one
/// inside may call itself what it likes.
fn monitor_of(paths: &Paths, pid: u32, cgroup: &CgroupIdentity) -> Option<Runtime> {
    let container = cgroup.container.as_ref()?;
    if container.runtime.is_some() {
        return None;
    }
    let mut pid = pid;
    for _ in 0..ANCESTORS {
        pid = process::parent(paths, pid).ok().filter(|pid| *pid > 1)?;
        let own = cgroup::of_process(&process::cgroups(paths, pid).ok()?)?;
        if own.container.is_some_and(|own| own.id == container.id) {
            continue;
        }
        let comm = process::comm(paths, pid).ok()?;
        let command_line = process::command_line(paths, pid).ok()?;
        let runtime = cgroup::runtime_of_ancestor(&comm, &argv(&command_line));
        if runtime.is_some() {
            return runtime;
        }
    }
    None
}

/// The arguments, each of which ends with a NUL.
fn argv(command_line: &[u8]) -> Vec<&[u8]> {
    let line = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    if line.is_empty() {
        return vec![];
    }
    line.split(|byte| *byte == 0).collect()
}

/// The first bytes of a command line, a space for each NUL between arguments.
fn shown(command_line: &[u8]) -> String {
    let line = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    let line: Vec<u8> = line
        .iter()
        .take(COMMAND_LINE_SHOWN)
        .map(|byte| if *byte == 0 { b' ' } else { *byte })
        .collect();
    printable(&line)
}

#[cfg(test)]
mod fixture_tests;
