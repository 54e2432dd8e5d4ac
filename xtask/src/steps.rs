//! Headlines, times and the table at the end.

use std::{
    fmt::{self, Display, Formatter},
    time::{Duration, Instant},
};

use anyhow::{Error, Result, bail};

/// What has been done so far, in order.
#[derive(Default)]
pub struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: String,
    outcome: Outcome,
    time: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Skipped,
    Failed,
}

impl Steps {
    /// Runs a step between its headline and its time.
    pub fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        self.timed(name, || {
            let result = step();
            let outcome = match &result {
                Ok(_) => Outcome::Ok,
                Err(_) => Outcome::Failed,
            };
            (result, outcome)
        })
    }

    /// Runs a step after whose failure the others still tell something; [`Self::finish`] reports it.
    pub fn check(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        self.check_if_possible(name, || Ok(()), step);
    }

    /// Like [`Self::check`], for a step whose preparation may show that it cannot be done here.
    pub fn check_if_possible(
        &mut self,
        name: &str,
        prepare: impl FnOnce() -> Result<()>,
        step: impl FnOnce() -> Result<()>,
    ) {
        self.timed(name, || {
            if let Err(why) = prepare() {
                eprintln!("not possible here: {why:#}");
                return ((), Outcome::Skipped);
            }
            match step() {
                Ok(()) => ((), Outcome::Ok),
                Err(error) => {
                    report(&error);
                    ((), Outcome::Failed)
                }
            }
        });
    }

    /// Prints the table of all steps; an error if one of them failed.
    pub fn finish(&self) -> Result<()> {
        eprint!("\n{self}");
        let failed: Vec<&str> = self
            .done
            .iter()
            .filter(|step| step.outcome == Outcome::Failed)
            .map(|step| step.name.as_str())
            .collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }

    fn timed<T>(&mut self, name: &str, step: impl FnOnce() -> (T, Outcome)) -> T {
        eprintln!("\n==> {name}");
        let start = Instant::now();
        let (result, outcome) = step();
        let time = start.elapsed();
        eprintln!("<== {name}: {outcome}, {:.1} s", time.as_secs_f64());
        self.done.push(Step {
            name: name.to_owned(),
            outcome,
            time,
        });
        result
    }
}

/// Prints an error that does not end the run.
pub fn report(error: &Error) {
    eprintln!("error: {error:#}");
}

impl Display for Steps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { done } = self;
        let width = done.iter().map(|step| step.name.len()).max().unwrap_or(0);
        for Step {
            name,
            outcome,
            time,
        } in done
        {
            let outcome = outcome.to_string();
            writeln!(f, "{name:width$}  {outcome:8}{:8.1} s", time.as_secs_f64())?;
        }
        let total: Duration = done.iter().map(|step| step.time).sum();
        writeln!(
            f,
            "{:width$}  {:8}{:8.1} s",
            "total",
            "",
            total.as_secs_f64()
        )
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Skipped => "not done",
            Self::Failed => "FAILED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_step_and_a_failure_is_an_error() {
        let mut steps = Steps::default();
        steps.run("build", || Ok(())).unwrap();
        steps.check_if_possible("lints for BPF", || bail!("no clippy"), || unreachable!());
        assert!(steps.finish().is_ok());

        steps.check("tests", || bail!("one failed"));
        let table = steps.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[0].starts_with("build          ok"), "{table}");
        assert!(lines[1].starts_with("lints for BPF  not done"), "{table}");
        assert!(lines[2].starts_with("tests          FAILED"), "{table}");
        assert!(lines[3].starts_with("total"), "{table}");
        assert_eq!(steps.finish().unwrap_err().to_string(), "failed: tests");
    }
}
