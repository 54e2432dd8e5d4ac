//! What the kernel tells of loaded programs in `/proc/self/fdinfo`.

use std::{
    fs::File,
    io,
    iter::Sum,
    os::{fd::RawFd, unix::fs::FileExt as _},
};

/// Bytes of what the kernel tells of a program; it is some 300.
const TEXT: usize = 4096;

/// Where the kernel tells what a program costs.
///
/// Opened while the process has its rights: before 5.14 these files are root's alone, once a process
/// cannot be dumped any more.
#[derive(Debug)]
pub struct Account(File);

impl Account {
    /// That of a loaded program.
    ///
    /// # Errors
    /// There is no such file.
    pub fn open(program: RawFd) -> io::Result<Self> {
        File::open(format!("/proc/self/fdinfo/{program}")).map(Self)
    }

    /// What the program cost so far.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn read(&self) -> io::Result<Cost> {
        let mut text = [0; TEXT];
        let length = self.0.read_at(&mut text, 0)?;
        Ok(Cost::parse(&String::from_utf8_lossy(&text[..length])))
    }
}

/// What programs cost so far. The kernel fills in runs and time only while BPF statistics are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How often the kernel skipped them, as one was running on that CPU already: in a task that
    /// was preempted inside it, or further down on the same stack (`recursion_misses`, 5.12+; 0 on
    /// older kernels, which do not tell).
    pub missed: u64,
    /// Runs (`run_cnt`, 5.1+).
    pub runs: u64,
    /// Nanoseconds in them (`run_time_ns`, 5.1+).
    pub run_ns: u64,
}

impl Cost {
    fn parse(fdinfo: &str) -> Self {
        let field = |name| {
            fdinfo
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or(0)
        };
        Self {
            missed: field("recursion_misses"),
            runs: field("run_cnt"),
            run_ns: field("run_time_ns"),
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| {
            let Self {
                missed,
                runs,
                run_ns,
            } = cost;
            Self {
                missed: sum.missed + missed,
                runs: sum.runs + runs,
                run_ns: sum.run_ns + run_ns,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_found_or_0() {
        let fdinfo =
            "pos:\t0\nprog_type:\t17\nrun_time_ns:\t700\nrun_cnt:\t7\nrecursion_misses:\t42\n";
        let cost = Cost {
            missed: 42,
            runs: 7,
            run_ns: 700,
        };
        assert_eq!(Cost::parse(fdinfo), cost);
        assert_eq!(Cost::parse("pos:\t0\n"), Cost::default());
        assert_eq!([cost, cost].into_iter().sum::<Cost>().run_ns, 1400);
        assert!(Account::open(-1).is_err());
    }

    #[test]
    fn fuzz_program_info() {
        bolero::check!(name = "program_info").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            let found = Cost::parse(&text);
            // What is behind the first line with a field changes nothing.
            let Cost {
                missed,
                runs,
                run_ns,
            } = found;
            let first =
                format!("run_time_ns:\t{run_ns}\nrun_cnt:\t{runs}\nrecursion_misses:\t{missed}\n");
            assert_eq!(Cost::parse(&format!("{first}{text}")), found);
        });
    }
}
