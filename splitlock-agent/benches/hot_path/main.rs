//! The cost of a program on KVM's tracepoints, beside other programs on the same hook in the same
//! run.
//!
//! `nanoseconds` counts them by the kernel's BPF run statistics, `wall` by the clock with whole tools
//! at work, and `instructions` counts instructions on a machine whose clock is its instruction
//! counter. Results are lines of JSON on standard output; `cargo xtask bench` makes the table of
//! them.

use std::process::ExitCode;

use anyhow::{Result, bail};

mod contenders;
mod guest;
mod instructions;
mod nanoseconds;
mod wall;

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hot_path: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    if let Err(missing) = guest::available() {
        bail!("{missing}");
    }
    match words {
        ["nanoseconds", rounds, count, peers @ ..] => {
            nanoseconds::measure(rounds.parse()?, count.parse()?, peers)
        }
        ["wall", rounds, count, tools @ ..] => {
            wall::measure(rounds.parse()?, count.parse()?, tools)
        }
        ["instructions", rounds, count] => instructions::measure(rounds.parse()?, count.parse()?),
        _ => bail!(
            "usage: hot_path nanoseconds ROUNDS COUNT [BPFTRACE] | wall ROUNDS COUNT [NAME COMMAND]… | \
             instructions ROUNDS COUNT"
        ),
    }
}
