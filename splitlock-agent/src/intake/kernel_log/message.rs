//! What the kernel's own lines about split locks say.
//!
//! The formats, which have hardly changed, were read in
//! [arch/x86/kernel/cpu/intel.c](https://github.com/torvalds/linux/blob/v6.12/arch/x86/kernel/cpu/intel.c)
//! (5.10.13, 6.1.192, 6.12.107), its successor
//! [bus_lock.c](https://github.com/torvalds/linux/blob/v7.3/arch/x86/kernel/cpu/bus_lock.c)
//! (7.3.4) and, for [`LogMessage::UserFatal`],
//! [arch/x86/kernel/traps.c](https://github.com/torvalds/linux/blob/v7.3/arch/x86/kernel/traps.c).
//!
//! A comm is hostile: its owner chooses up to 15 bytes of it, blanks, slashes, digits and
//! newlines included, and those of QEMU's vCPUs are like `CPU 0/KVM`. So nothing is searched from the left that
//! a comm can contain. Two bounds hold that up: a user cannot write a line of facility 0, and the
//! kernel prefixes each of these lines, so that no text of a user's stands first.

use splitlock_common::Trap;

use super::record::Record;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogMessage {
    /// A trapped lock.
    ///
    /// The lines are rate limited; from 5.19 on `#AC` tells of a thread once in its life. So they
    /// are a lower bound, and the best source only where no hook is.
    Trap {
        /// Which mechanism noticed it.
        trap: Trap,
        /// What the kernel says about it.
        what: What,
        /// The thread's comm at that time, with U+FFFD for what is not UTF-8.
        comm: String,
        /// The thread's id in the initial pid namespace: `current->pid`.
        tid: u32,
        /// `#AC`: the instruction. `#DB`: the one after it. For a guest's lock, the guest's.
        address: u64,
    },
    /// How detection was set up at boot. The last such line counts: 5.7 to 5.12 name the mode
    /// first and then find that the MSR cannot be written.
    Setup(Setup),
    /// A process dies of an `#AC`, as it has no SIGBUS handler.
    ///
    /// That is not yet a split lock: the line is the same for a real alignment check (EFLAGS.AC
    /// set) and for a split lock in fatal mode. It is rate limited, and not printed if the
    /// process has a handler or `debug.exception-trace` is 0.
    UserFatal {
        /// The thread's comm, with U+FFFD for what is not UTF-8.
        comm: String,
        /// The thread's id in the initial pid namespace.
        tid: u32,
        /// The instruction.
        ip: u64,
    },
}

/// What the kernel says about a trapped lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `took a … trap`: warned. User code and guests have the same line (`split_lock_warn` is
    /// called for both), so that a line whose thread is a vCPU may mean either.
    Took,
    /// `fatal split_lock trap`: a guest's, in fatal mode; SIGBUS follows. Printed once since
    /// boot.
    Fatal,
    /// `bogus split_lock trap`: a guest's, though detection is off; SIGBUS follows. The same
    /// line as [`Self::Fatal`] but for the word, so either is printed once since boot.
    Bogus,
}

/// How detection was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which mechanism the line is about; `None` for the whole of it.
    pub trap: Option<Trap>,
    /// What it was set to.
    pub mode: SetupMode,
}

/// A mode of detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupMode {
    /// Off, by parameter, or as the MSR did not obey.
    Disabled,
    /// User code is warned.
    Warn,
    /// User code gets SIGBUS.
    Fatal,
    /// Bus locks are slowed down.
    RateLimit {
        /// Bus locks a second, of the whole host.
        per_second: u32,
    },
}

/// A line that begins like one of these messages and goes on as none that is known: cut, or of a
/// kernel with other words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel log: a split-lock message with unknown words: {text:?}")]
pub struct UnknownMessage {
    /// The line.
    pub text: String,
}

impl LogMessage {
    /// What a record says, if the kernel itself wrote it; `None` if it is about something else.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn from_record(record: &Record) -> Result<Option<Self>, UnknownMessage> {
        if record.is_whole_kernel_message() {
            Self::parse(&record.text)
        } else {
            Ok(None)
        }
    }

    /// What the text of a kernel message says; `None` if it is about something else.
    ///
    /// # Errors
    ///
    /// If it begins as one of these messages, but is none that is known.
    pub fn parse(text: &[u8]) -> Result<Option<Self>, UnknownMessage> {
        let found = if let Some(rest) = text.strip_prefix(b"x86/split lock detection: ") {
            // Printed at boot where the CPU-offline callback was refused; tells of no trap.
            if rest == b"No splitlock CPU offline handler" {
                return Ok(None);
            }
            trap(rest).or_else(|| setup(rest).map(Self::Setup))
        } else if let Some((comm, tid, rest)) = alignment_check(text) {
            user_fatal(comm, tid, rest)
        } else {
            return Ok(None);
        };
        found
            .map(Some)
            .ok_or_else(|| UnknownMessage { text: lossy(text) })
    }
}

/// `#AC: %s/%d took a split_lock trap at address: 0x%lx`, with `fatal` or `bogus` for `took a`;
/// `#DB: %s/%d took a bus_lock trap at address: 0x%lx` (5.13 and later).
///
/// From the right, as everything but the comm has a shape that the comm cannot change there.
fn trap(rest: &[u8]) -> Option<LogMessage> {
    let (rest, address) = rsplit_once(rest, b" trap at address: 0x")?;
    let address = hexadecimal(address)?;
    let (rest, word) = rsplit_once(rest, b" ")?;
    let (rest, what) = [
        (&b" took a"[..], What::Took),
        (b" fatal", What::Fatal),
        (b" bogus", What::Bogus),
    ]
    .into_iter()
    .find_map(|(suffix, what)| Some((rest.strip_suffix(suffix)?, what)))?;
    let (comm, tid) = rsplit_once(rest, b"/")?;
    let tid = decimal(tid)?;
    let (trap, comm) = match (word, what) {
        (b"split_lock", _) => (Trap::SplitLock, comm.strip_prefix(b"#AC: ")?),
        (b"bus_lock", What::Took) => (Trap::BusLock, comm.strip_prefix(b"#DB: ")?),
        _ => return None,
    };
    Some(LogMessage::Trap {
        trap,
        what,
        comm: lossy(comm),
        tid,
        address,
    })
}

/// The lines of boot.
fn setup(rest: &[u8]) -> Option<Setup> {
    use SetupMode::{Disabled, Fatal, RateLimit, Warn};
    let (trap, mode) = match rest {
        // 5.7 to 6.12, gone by 7.3, which says nothing when off.
        b"disabled" => (None, Disabled),
        // 5.7 and later: MSR_TEST_CTRL did not keep what was written to it. No `#AC`, but from
        // 5.13 on maybe `#DB`, of which a line of its own follows.
        b"MSR access failed: Disabled" => (Some(Trap::SplitLock), Disabled),
        // 5.7 to 5.12.
        b"warning about user-space split_locks" => (Some(Trap::SplitLock), Warn),
        b"sending SIGBUS on user-space split_locks" => (Some(Trap::SplitLock), Fatal),
        // 5.13 and later, to the end.
        b"#AC: crashing the kernel on kernel split_locks and warning on user-space split_locks" => {
            (Some(Trap::SplitLock), Warn)
        }
        b"#AC: crashing the kernel on kernel split_locks and sending SIGBUS on user-space split_locks" => {
            (Some(Trap::SplitLock), Fatal)
        }
        b"#DB: warning on user-space bus_locks" => (Some(Trap::BusLock), Warn),
        // The longer one is in the source up to 6.12, under a condition that is never true.
        b"#DB: sending SIGBUS on user-space bus_locks"
        | b"#DB: sending SIGBUS on user-space bus_locks from non-WB" => {
            (Some(Trap::BusLock), Fatal)
        }
        // 5.14 and later.
        _ => {
            let per_second = rest
                .strip_prefix(b"#DB: setting system wide bus lock rate limit to ")?
                .strip_suffix(b"/sec")?;
            let per_second = decimal(per_second)?;
            (Some(Trap::BusLock), RateLimit { per_second })
        }
    };
    Some(Setup { trap, mode })
}

/// Comm, thread id and the rest after `ip:` of `traps: %s[%d] trap alignment check ip:…`.
///
/// The line may end in the name of a file (` in %s[…]`), which its owner chooses too, and at
/// greater length. So the words are searched from the left, where the comm is too short to hold
/// them; and what stands there as comm must be no longer than one, or it is another trap's line
/// with a file of that name.
fn alignment_check(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    /// `TASK_COMM_LEN` less the NUL.
    const COMM_MAX: usize = 15;
    const WORDS: &[u8] = b"] trap alignment check ip:";
    const { assert!(WORDS.len() > COMM_MAX) };

    let rest = text.strip_prefix(b"traps: ")?;
    let words = rest
        .windows(WORDS.len())
        .position(|window| window == WORDS)?;
    let (comm, tid) = rsplit_once(&rest[..words], b"[")?;
    (comm.len() <= COMM_MAX).then(|| (comm, tid, &rest[words + WORDS.len()..]))
}

/// `ip:%lx sp:%lx error:%lx`, and ` in %s[…]` where a file is mapped there.
fn user_fatal(comm: &[u8], tid: &[u8], rest: &[u8]) -> Option<LogMessage> {
    let mut words = rest.split(|byte| *byte == b' ');
    let ip = hexadecimal(words.next()?)?;
    hexadecimal(words.next()?.strip_prefix(b"sp:")?)?;
    hexadecimal(words.next()?.strip_prefix(b"error:")?)?;
    Some(LogMessage::UserFatal {
        comm: lossy(comm),
        tid: decimal(tid)?,
        ip,
    })
}

fn rsplit_once<'text>(text: &'text [u8], separator: &[u8]) -> Option<(&'text [u8], &'text [u8])> {
    let mut windows = text.windows(separator.len());
    let position = windows.rposition(|window| window == separator)?;
    Some((&text[..position], &text[position + separator.len()..]))
}

/// Digits only: `parse` alone would take a sign.
fn decimal(digits: &[u8]) -> Option<u32> {
    let only_digits = digits.iter().all(u8::is_ascii_digit);
    only_digits.then(|| str::from_utf8(digits).ok()?.parse().ok())?
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let only_digits = digits.iter().all(u8::is_ascii_hexdigit);
    only_digits.then(|| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())?
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "x86/split lock detection: ";

    fn parse(text: &str) -> Option<LogMessage> {
        LogMessage::parse(text.as_bytes()).unwrap()
    }

    fn trap(trap: Trap, what: What, comm: &str, tid: u32, address: u64) -> Option<LogMessage> {
        let comm = comm.to_owned();
        Some(LogMessage::Trap {
            trap,
            what,
            comm,
            tid,
            address,
        })
    }

    fn user_fatal(comm: &str, tid: u32, ip: u64) -> Option<LogMessage> {
        let comm = comm.to_owned();
        Some(LogMessage::UserFatal { comm, tid, ip })
    }

    fn setup(trap: Option<Trap>, mode: SetupMode) -> Option<LogMessage> {
        Some(LogMessage::Setup(Setup { trap, mode }))
    }

    #[test]
    fn traps_of_every_version() {
        // 5.7 and later.
        assert_eq!(
            parse(&format!(
                "{PREFIX}#AC: qemu-system-x86/24383 took a split_lock trap at address: 0x400306"
            )),
            trap(
                Trap::SplitLock,
                What::Took,
                "qemu-system-x86",
                24383,
                0x40_0306
            )
        );
        assert_eq!(
            parse(&format!(
                "{PREFIX}#AC: CPU 0/KVM/1968 took a split_lock trap at address: 0xfffff804726dfdff"
            )),
            trap(
                Trap::SplitLock,
                What::Took,
                "CPU 0/KVM",
                1968,
                0xffff_f804_726d_fdff
            )
        );
        for (word, what) in [("fatal", What::Fatal), ("bogus", What::Bogus)] {
            assert_eq!(
                parse(&format!(
                    "{PREFIX}#AC: CPU 3/KVM/77 {word} split_lock trap at address: 0x0"
                )),
                trap(Trap::SplitLock, what, "CPU 3/KVM", 77, 0)
            );
        }
        // 5.13 and later.
        assert_eq!(
            parse(&format!(
                "{PREFIX}#DB: buslock/4194304 took a bus_lock trap at address: 0x401a2c"
            )),
            trap(Trap::BusLock, What::Took, "buslock", 4_194_304, 0x40_1a2c)
        );
    }

    #[test]
    fn setups_of_every_version() {
        use SetupMode::{Disabled, Fatal, RateLimit, Warn};
        let ac = Some(Trap::SplitLock);
        let db = Some(Trap::BusLock);
        let crashing = "#AC: crashing the kernel on kernel split_locks and";
        for (line, expected) in [
            ("disabled", setup(None, Disabled)),
            ("MSR access failed: Disabled", setup(ac, Disabled)),
            ("warning about user-space split_locks", setup(ac, Warn)),
            ("sending SIGBUS on user-space split_locks", setup(ac, Fatal)),
            (
                &format!("{crashing} warning on user-space split_locks"),
                setup(ac, Warn),
            ),
            (
                &format!("{crashing} sending SIGBUS on user-space split_locks"),
                setup(ac, Fatal),
            ),
            ("#DB: warning on user-space bus_locks", setup(db, Warn)),
            (
                "#DB: sending SIGBUS on user-space bus_locks",
                setup(db, Fatal),
            ),
            (
                "#DB: sending SIGBUS on user-space bus_locks from non-WB",
                setup(db, Fatal),
            ),
            (
                "#DB: setting system wide bus lock rate limit to 1000/sec",
                setup(db, RateLimit { per_second: 1000 }),
            ),
            ("No splitlock CPU offline handler", None),
        ] {
            assert_eq!(parse(&format!("{PREFIX}{line}")), expected, "{line}");
        }
    }

    #[test]
    fn a_dying_process_of_a_running_6_18() {
        let tail = "sp:7ffcba2e47e0 error:0 in ac[1184,56167f6d9000+1000]";
        for (comm, tid) in [
            ("ac", 7252),
            ("CPU 0/KVM", 7253),
            ("a\\b\n[1] tr", 7254),
            ("", 1),
        ] {
            assert_eq!(
                parse(&format!(
                    "traps: {comm}[{tid}] trap alignment check ip:56167f6d9184 {tail}"
                )),
                user_fatal(comm, tid, 0x5616_7f6d_9184)
            );
        }
        // Code that no file is mapped for; and the shorter form of 6.1.
        let line = "traps: jit[9] trap alignment check ip:7f01 sp:7ffc error:0";
        assert_eq!(parse(line), user_fatal("jit", 9, 0x7f01));
        let line = format!("{line} in a.out[400000+1000]");
        assert_eq!(parse(&line), user_fatal("jit", 9, 0x7f01));
    }

    #[test]
    fn a_comm_forges_no_trap() {
        let real = "7 took a split_lock trap at address: 0x2";
        for comm in [
            "",
            "/",
            "a/1",
            "a/1 took a spli",
            ": 0x1",
            "#AC: init/1",
            "#DB: x/1",
            "took a bus_lock",
            "\nx86/split lock",
            "é日本",
            " a ",
            // Longer than today's kernels allow, so that it need not rest on that.
            "a/1 took a split_lock trap at address: 0x1",
            "a/1 fatal split_lock trap at address: 0x1\n",
        ] {
            assert_eq!(
                parse(&format!("{PREFIX}#AC: {comm}/{real}")),
                trap(Trap::SplitLock, What::Took, comm, 7, 2)
            );
        }
    }

    #[test]
    fn a_comm_or_a_file_forges_no_death() {
        let real = "[7] trap alignment check ip:a sp:b error:0";
        for comm in [
            "",
            "[1]",
            "x[1] trap align",
            "[",
            "]",
            "[1] trap",
            "traps: x[1] tra",
            "q[1] trap: x/9",
        ] {
            for file in [
                "",
                " in x[7] trap alignment check ip:1 sp:2 error:0[1184,5+1000]",
            ] {
                assert_eq!(
                    parse(&format!("traps: {comm}{real}{file}")),
                    user_fatal(comm, 7, 0xa),
                    "{comm} {file}"
                );
            }
        }
        // Another trap, in a file whose name pretends to be this one.
        for line in [
            "traps: a[1] trap int3 ip:0 sp:0 error:0 in x[2] trap alignment check ip:1 sp:2 error:0[0,5+1000]",
            "traps: [1] general protection fault ip:0 sp:0 error:0 in [2] trap alignment check ip:1 sp:2 error:0[0,5+1000]",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_replaced() {
        let line =
            b"x86/split lock detection: #AC: \xff\xfe/7 took a split_lock trap at address: 0x2";
        assert_eq!(
            LogMessage::parse(line).unwrap(),
            trap(Trap::SplitLock, What::Took, "\u{fffd}\u{fffd}", 7, 2)
        );
        let line = b"traps: a\xffb[7] trap alignment check ip:a sp:b error:0 in \xff[1,2+3]";
        assert_eq!(
            LogMessage::parse(line).unwrap(),
            user_fatal("a\u{fffd}b", 7, 0xa)
        );
        // A byte that is not UTF-8 counts as one of the comm's, not as the three of U+FFFD.
        let line = [
            b"traps: ",
            &[0xff; 15][..],
            b"[7] trap alignment check ip:a sp:b error:0",
        ]
        .concat();
        assert!(LogMessage::parse(&line).unwrap().is_some());
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "x86/split lock detection",
            "x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'",
            " x86/split lock detection: disabled",
            "init: x86/split lock detection: #AC: a/1 took a split_lock trap at address: 0x1",
            "traps: a[1] general protection fault ip:1 sp:2 error:0",
            "traps: PANIC: double fault, error_code: 0x0",
            "traps: ",
            "a[1]: segfault at 0 ip 1 sp 2 error 4 in a[1,2+3]",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn unknown_words_are_errors() {
        for line in [
            "",
            "Disabled",
            "disabled.",
            "#AC: a/1 took a split_lock trap",
            "#AC: a/1 took a split_lock trap at address: 0x",
            "#AC: a/1 took a split_lock trap at address: 0x1 ",
            "#AC: a/1 took a split_lock trap at address: 0x+1",
            "#AC: a/1 took a split_lock trap at address: 0x10000000000000000",
            "#AC: a took a split_lock trap at address: 0x1",
            "#AC: a/ took a split_lock trap at address: 0x1",
            "#AC: a/-1 took a split_lock trap at address: 0x1",
            "#AC: a/4294967296 took a split_lock trap at address: 0x1",
            "#AC: a/1 shook a split_lock trap at address: 0x1",
            "#AC: a/1 took a bus_lock trap at address: 0x1",
            "#DB: a/1 took a split_lock trap at address: 0x1",
            "#DB: a/1 fatal bus_lock trap at address: 0x1",
            "a/1 took a split_lock trap at address: 0x1",
            "#DB: setting system wide bus lock rate limit to /sec",
            "#DB: setting system wide bus lock rate limit to -1/sec",
        ] {
            let line = format!("{PREFIX}{line}");
            let error = LogMessage::parse(line.as_bytes()).unwrap_err();
            assert_eq!(error.text, line);
        }
        for line in [
            "traps: a[1] trap alignment check ip:",
            "traps: a[1] trap alignment check ip:1",
            "traps: a[1] trap alignment check ip:1 sp:2",
            "traps: a[1] trap alignment check ip:0x1 sp:2 error:0",
            "traps: a[] trap alignment check ip:1 sp:2 error:0",
            "traps: a[x] trap alignment check ip:1 sp:2 error:0",
        ] {
            assert!(LogMessage::parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn no_cut_of_a_line_panics_or_tells_another_thread() {
        let lines = [
            "x86/split lock detection: #AC: CPU 0/KVM/1968 took a split_lock trap at address: 0xff",
            "x86/split lock detection: #DB: a/1968 took a bus_lock trap at address: 0xff",
            "traps: a/b[1968] trap alignment check ip:ff sp:b error:0 in ac[1184,5+1000]",
        ];
        for line in lines {
            for length in 0..=line.len() {
                match LogMessage::parse(&line.as_bytes()[..length]) {
                    Ok(Some(LogMessage::Trap { tid, .. } | LogMessage::UserFatal { tid, .. })) => {
                        assert_eq!(tid, 1968);
                    }
                    Ok(Some(LogMessage::Setup(setup))) => panic!("{setup:?}"),
                    Ok(None) | Err(UnknownMessage { .. }) => {}
                }
            }
        }
    }

    #[test]
    fn only_the_kernels_own_whole_lines_are_believed() {
        let record = |prefix: &str| {
            let line =
                "x86/split lock detection: #AC: a\\x2f1/7 took a split_lock trap at address: 0x2";
            Record::parse(format!("{prefix};{line}\n").as_bytes()).unwrap()
        };
        let told = trap(Trap::SplitLock, What::Took, "a/1", 7, 2);
        assert_eq!(
            LogMessage::from_record(&record("4,1,2,-")),
            Ok(told.clone())
        );
        assert_eq!(
            LogMessage::from_record(&record("4,1,2,-,caller=T7")),
            Ok(told)
        );
        assert_eq!(LogMessage::from_record(&record("12,1,2,-")), Ok(None)); // a user's line
        assert_eq!(LogMessage::from_record(&record("4,1,2,c")), Ok(None)); // a fragment
    }
}
