//! The test program with libFuzzer in it, and its runs.
//!
//! `cargo bolero` would build the binary's tests too, which do not link with these flags.

use std::{
    env,
    fmt::{self, Display, Formatter},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{ensure_folder, targets::Target};
use crate::{command, workspace::Workspace};

/// Named, it keeps the flags away from build scripts and the BPF programs.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// What bolero looks for, and what libFuzzer wants of the compiler: counters, and what is compared.
const FLAGS: [&str; 9] = [
    "--cfg",
    "fuzzing",
    "--cfg",
    "fuzzing_libfuzzer",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// Seconds for one input, MiB for the process, and bytes of an input.
const LIMITS: [&str; 3] = ["-timeout=25", "-rss_limit_mb=2048", "-max_len=16384"];

/// The program.
pub struct Engine {
    program: PathBuf,
    tests: Vec<String>,
    folder: PathBuf,
}

/// How a run went.
pub struct Run {
    /// The target.
    pub target: String,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
    seconds: u32,
    executions: u64,
    /// Places in the code that inputs led to.
    coverage: u64,
    /// Inputs that each led to another one.
    inputs: u64,
}

impl Engine {
    /// Builds it.
    pub fn build(workspace: &Workspace) -> Result<Self> {
        let mut build = workspace.cargo();
        build
            .args(["test", "-p", "splitlock-agent", "--lib", "--no-run"])
            .args(["--profile", "fuzz", "--target", TRIPLE])
            .arg("--message-format=json-render-diagnostics")
            // The compiler's pass is an unstable flag.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", FLAGS.join(" "))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let output = build
            .output()
            .with_context(|| format!("cannot start {build:?}"))?;
        let messages = String::from_utf8_lossy(&output.stdout);
        let program = executable(&messages)
            .with_context(|| format!("{build:?} made no program: {}", output.status))?;
        let list = command::output(Command::new(&program).args(["--list", "fuzz_"]))?;
        let tests = list.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(Self {
            tests: tests.map(str::to_owned).collect(),
            program,
            folder: ensure_folder(workspace.build_dir.join("fuzz-runs"))?,
        })
    }

    /// Where grown corpora, outputs and failed inputs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a target's corpus grows.
    pub fn grown(&self, target: &Target) -> Result<PathBuf> {
        ensure_folder(self.folder.join(&target.name))
    }

    /// A command that hands libFuzzer these arguments.
    pub fn command(&self, target: &Target, arguments: &[String]) -> Result<Command> {
        let suffix = format!("::fuzz_{}", target.name);
        let test = self
            .tests
            .iter()
            .find(|test| test.ends_with(&suffix))
            .with_context(|| format!("{} has no test {suffix}", self.program.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args([test, "--exact", "--nocapture"])
            .env("BOLERO_FUZZER", "libfuzzer")
            .env("BOLERO_TEST_NAME", test)
            .env("BOLERO_LIBFUZZER_ARGS", arguments.join(" "))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        // Its own flags are none of the agent's.
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SPLITLOCK_"))
        {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Runs a target.
    pub fn run(&self, target: &Target, seconds: u32) -> Result<Run> {
        let output = self.folder.join(format!("{}.log", target.name));
        let mut arguments = vec![
            self.grown(target)?.display().to_string(),
            target.corpus.display().to_string(),
            format!("-max_total_time={seconds}"),
            "-print_final_stats=1".to_owned(),
            format!("-artifact_prefix={}-", target.name),
        ];
        arguments.extend(LIMITS.map(str::to_owned));
        let file = File::create(&output).with_context(|| output.display().to_string())?;
        let mut command = self.command(target, &arguments)?;
        let status = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .with_context(|| format!("cannot start {command:?}"))?;
        let text = fs::read(&output).with_context(|| output.display().to_string())?;
        let text = String::from_utf8_lossy(&text);
        Ok(Run {
            target: target.name.clone(),
            failure: (!status.success()).then(|| format!("{status}, see {}", output.display())),
            seconds,
            ..read(&text)
        })
    }
}

/// The test program among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    })
}

/// What libFuzzer said.
fn read(text: &str) -> Run {
    let behind = |line: &str, word: &str| -> Option<u64> {
        let rest = &line[line.find(word)? + word.len()..];
        rest.split_whitespace()
            .next()?
            .split('/')
            .next()?
            .parse()
            .ok()
    };
    let last = |word: &str| {
        text.lines()
            .rev()
            .find_map(|line| behind(line, word))
            .unwrap_or(0)
    };
    Run {
        target: String::new(),
        failure: None,
        seconds: 0,
        executions: last("stat::number_of_executed_units: "),
        coverage: last(" cov: "),
        inputs: last(" corp: "),
    }
}

impl Display for Run {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            failure,
            seconds,
            executions,
            coverage,
            inputs,
        } = self;
        let failure = failure.as_deref().unwrap_or("none");
        writeln!(
            f,
            "{target:<18} {seconds:>8} {executions:>12} {coverage:>9} {inputs:>7}  {failure}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_it_says() {
        let text = "#2\tINITED cov: 41 ft: 42 corp: 2/50b exec/s: 0 rss: 30Mb\n\
            #4096\tpulse  cov: 90 ft: 120 corp: 17/1Kb lim: 4 exec/s: 2048 rss: 31Mb\n\
            Done 9000 runs in 2 second(s)\nstat::number_of_executed_units: 9000\n";
        let run = read(text);
        assert_eq!((run.executions, run.coverage, run.inputs), (9000, 90, 17));
        let run = read("");
        assert_eq!((run.executions, run.coverage, run.inputs), (0, 0, 0));
    }

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nnoise\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/deps/agent-1\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/deps/agent-1")));
        assert_eq!(executable(""), None);
    }
}
