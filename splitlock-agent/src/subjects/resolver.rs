//! Asks `/proc` who a subject is.

use std::io;

use super::{
    SubjectId, cgroup,
    identity::{Fact, Identity, Missing, Seen, Why},
    names::printable,
    paths::Paths,
    process,
    vmm::name_vm,
};

/// Bytes of a command line that an identity carries.
const COMMAND_LINE_SHOWN: usize = 256;

/// Answers who a subject is. Remembers nothing of subjects.
#[derive(Debug)]
pub struct Resolver {
    paths: Paths,
}

impl Resolver {
    /// Of the host whose file systems are mounted there.
    pub const fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// Who a subject is, as far as it can still be learnt.
    ///
    /// What `/proc` says counts only if the pid was the subject's own before and after; else the
    /// kernel side's word is all.
    pub fn identify(&self, subject: SubjectId, seen: &Seen<'_>) -> Identity {
        let read = self.read(subject);
        let lives = process::start_ticks(&self.paths, subject.pid)
            .is_ok_and(|ticks| ticks == subject.start_ticks);
        let mut missing = Vec::new();
        let mut take = |fact, read: io::Result<Vec<u8>>| match read {
            Ok(read) if lives => Some(read),
            read => {
                let why = if lives { Why::Unreadable } else { Why::Ended };
                drop(read);
                missing.push(Missing { fact, why });
                None
            }
        };
        let exe = take(Fact::Exe, read.exe);
        let command_line = take(Fact::CommandLine, read.command_line);
        let cgroups = take(Fact::Cgroup, read.cgroups);
        let cgroup = cgroups.as_deref().and_then(cgroup::of_process);
        let argv: Vec<&[u8]> = command_line
            .as_deref()
            .map(|line| line.split(|byte| *byte == 0).collect())
            .unwrap_or_default();
        let vm = name_vm(
            exe.as_deref().unwrap_or_default(),
            &argv,
            seen.comm,
            &cgroup.clone().unwrap_or_default(),
        );
        Identity {
            subject,
            comm: printable(seen.comm),
            exe: exe.as_deref().map(printable),
            command_line: command_line.as_deref().map(shown),
            cgroup,
            vm,
            missing,
        }
    }

    fn read(&self, subject: SubjectId) -> Read {
        Read {
            exe: process::exe(&self.paths, subject.pid),
            command_line: process::command_line(&self.paths, subject.pid),
            cgroups: process::cgroups(&self.paths, subject.pid),
        }
    }
}

/// What `/proc` said of a pid.
struct Read {
    exe: io::Result<Vec<u8>>,
    command_line: io::Result<Vec<u8>>,
    cgroups: io::Result<Vec<u8>>,
}

/// The first bytes of a command line, a space for each NUL between arguments.
fn shown(command_line: &[u8]) -> String {
    let mut line = command_line[..command_line.len().min(COMMAND_LINE_SHOWN)].to_vec();
    while line.last() == Some(&0) {
        line.pop();
    }
    for byte in &mut line {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    printable(&line)
}
