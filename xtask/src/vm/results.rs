//! What became of one boot.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{kernels::Kernel, protocol::Report, scenarios::Scenario};

/// The result of a test before its end.
const NOT_RUN: &str = "not run";
/// Lines of a failed test's message that are shown at once.
const MESSAGE_LINES: usize = 6;

/// One kernel in one scenario: everything that it reported.
#[derive(Debug, Clone, Serialize)]
pub struct Boot {
    /// The kernel's series, as `6.12`.
    pub kernel: String,
    /// As the booted kernel says it, else as its package.
    pub release: String,
    /// Version of the package.
    pub package_version: String,
    /// The scenario's name.
    pub scenario: String,
    /// Seconds from QEMU's start to its end, of the last attempt.
    pub seconds: f64,
    /// What earlier attempts died of.
    pub hangs: Vec<String>,
    /// How each hook is attached.
    pub hooks: Vec<Hook>,
    /// What the agent says of the host.
    pub host: Value,
    /// Why there is no report on hooks.
    pub refusal: Option<String>,
    /// The tests, by name.
    pub tests: BTreeMap<String, Test>,
    /// The test program's last line.
    pub summary: Option<String>,
    /// Lines of the benchmark.
    pub measured: Vec<Value>,
    /// What went wrong besides tests.
    pub problems: Vec<String>,
    /// The console.
    pub log: PathBuf,
    /// Whether the order was done to its end.
    #[serde(skip)]
    done: bool,
    #[serde(skip)]
    booted: bool,
}

/// A hook of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Its name.
    pub probe: String,
    /// The rung, or `none`.
    pub via: String,
    /// What its count means.
    pub counts: String,
    /// Why better rungs, or all, are not attached.
    pub refused: Vec<String>,
}

/// A test's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Test {
    /// `ok`, `FAILED` or `ignored`.
    pub result: String,
    /// Why it failed or was ignored.
    pub reason: Option<String>,
}

impl Boot {
    /// A boot that has not reported anything.
    pub fn new(kernel: &Kernel, scenario: &Scenario, log: PathBuf) -> Self {
        Self {
            kernel: kernel.series.to_string(),
            release: kernel.release.clone(),
            package_version: kernel.package_version.clone(),
            scenario: scenario.name.to_owned(),
            seconds: 0.0,
            hangs: Vec::new(),
            hooks: Vec::new(),
            host: Value::Null,
            refusal: None,
            tests: BTreeMap::new(),
            summary: None,
            measured: Vec::new(),
            problems: Vec::new(),
            log,
            done: false,
            booted: false,
        }
    }

    /// Takes a report, and returns a line for the person who watches.
    pub fn take(&mut self, report: Report, scenario: &Scenario) -> Option<String> {
        match report {
            Report::Booted { release } => {
                self.booted = true;
                self.release.clone_from(&release);
                Some(format!("booted {release}"))
            }
            Report::Module { error: None, .. } => None,
            Report::Module {
                file,
                error: Some(error),
            } => Some(format!("module {file}: {error}")),
            Report::Agent { snapshot } => {
                self.hooks = hooks(&snapshot);
                self.host = snapshot["host"].clone();
                let attached = self.hooks.iter().filter(|hook| hook.via != "none").count();
                Some(format!(
                    "the agent runs, {attached} of {} hooks attached",
                    self.hooks.len()
                ))
            }
            Report::AgentFailed { error } => {
                if !scenario.may_refuse {
                    self.problems
                        .push(format!("the agent does not run: {error}"));
                }
                self.refusal = Some(error.clone());
                Some(format!("the agent does not run: {error}"))
            }
            Report::Test { test, result } => {
                let line = format!("{test} {result}");
                self.test(test).result = result;
                Some(line)
            }
            Report::Skipped { test, reason } => {
                self.test(test).reason = Some(reason);
                None
            }
            Report::Failure { test, message } => {
                let line = format!("{test}: {}", beginning(&message));
                self.test(test).reason = Some(message);
                Some(line)
            }
            Report::TestsEnded { status, summary } => {
                if summary.is_none() {
                    self.problems
                        .push(format!("the test program ended early: {status}"));
                } else {
                    // Tests that the filter kept out have told why they skip all the same.
                    self.tests.retain(|_, test| test.result != NOT_RUN);
                    if self.tests.is_empty() {
                        self.problems.push("no test has this name".to_owned());
                    }
                }
                self.summary.clone_from(&summary);
                summary
            }
            Report::Measured { line } => {
                let told = line.to_string();
                self.measured.push(line);
                Some(told)
            }
            Report::Failed { error } => {
                let line = format!("rig-init: {error}");
                self.problems.push(line.clone());
                Some(line)
            }
            Report::Done => {
                self.done = true;
                None
            }
        }
    }

    /// Notes the end of the machine; `killed` says for which reason it had to be killed.
    pub fn end(&mut self, time: Duration, killed: Option<String>) {
        self.seconds = (time.as_secs_f64() * 10.0).round() / 10.0;
        if let Some(why) = killed {
            self.problems.push(why);
        } else if !self.booted {
            self.problems
                .push("it did not boot; see also the .qemu.log beside the log".to_owned());
        } else if !self.done && self.problems.is_empty() {
            self.problems
                .push("it went down before it was done".to_owned());
        }
    }

    /// Whether another attempt could do better: what ended this one was no test and no refusal.
    pub fn is_hang(&self) -> bool {
        !self.done
    }

    /// Why this boot is a failure; empty if it is none.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.problems.clone();
        failures.extend(
            self.tests
                .iter()
                .filter(|(_, test)| test.result == "FAILED")
                .map(|(name, _)| name.clone()),
        );
        failures
    }

    /// The entry of a test, whose reports come in any order.
    fn test(&mut self, name: String) -> &mut Test {
        self.tests.entry(name).or_insert_with(|| Test {
            result: NOT_RUN.to_owned(),
            reason: None,
        })
    }
}

/// As much of a message as a person reads while other lines come.
fn beginning(message: &str) -> String {
    let mut lines: Vec<&str> = message.lines().take(MESSAGE_LINES + 1).collect();
    if lines.len() > MESSAGE_LINES {
        lines[MESSAGE_LINES] = "…";
    }
    lines.join("\n")
}

/// The hooks of a snapshot.
fn hooks(snapshot: &Value) -> Vec<Hook> {
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    snapshot["probes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|probe| Hook {
            probe: text(&probe["probe"]),
            via: text(&probe["via"]),
            counts: text(&probe["counts"]),
            refused: probe["refused"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|reason| {
                    reason
                        .as_str()
                        .map_or_else(|| reason.to_string(), str::to_owned)
                })
                .collect(),
        })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;
    use crate::vm::{kernels, scenarios::USUAL};

    /// A boot as reported by a kernel.
    pub fn boot(release: &str, reports: Vec<Report>) -> Boot {
        let kernel = kernels::tests::kernel(release);
        let mut boot = Boot::new(&kernel, &USUAL, "/log".into());
        for report in reports {
            boot.take(report, &USUAL);
        }
        boot.end(Duration::from_secs(7), None);
        boot
    }

    /// The reports of a boot without a failure.
    pub fn reports() -> Vec<Report> {
        vec![
            Report::Booted {
                release: "6.1.0-56-cloud-amd64".to_owned(),
            },
            Report::Agent {
                snapshot: json!({"host": {"detection_mode": "warn"}, "probes": [
                    {"probe": "kvm_exit", "via": "tracepoint", "counts": "every_trap",
                     "refused": ["raw_tracepoint: no BTF"]},
                    {"probe": "handle_bus_lock", "via": null, "counts": "none", "refused": []},
                ]}),
            },
            Report::Skipped {
                test: "a::needs".to_owned(),
                reason: "needs #AC".to_owned(),
            },
            Report::Test {
                test: "a::needs".to_owned(),
                result: "ignored".to_owned(),
            },
            Report::Test {
                test: "a::works".to_owned(),
                result: "ok".to_owned(),
            },
            Report::TestsEnded {
                status: "exit status: 0".to_owned(),
                summary: Some("test result: ok.".to_owned()),
            },
            Report::Done,
        ]
    }

    #[test]
    fn a_boot_without_failure() {
        let boot = boot("6.1.0-56-cloud-amd64", reports());
        assert_eq!(boot.failures(), Vec::<String>::new());
        assert!(!boot.is_hang());
        assert_eq!(boot.kernel, "6.1");
        assert_eq!(boot.hooks[1].via, "none");
        assert_eq!(boot.hooks[0].refused, ["raw_tracepoint: no BTF"]);
        assert_eq!(boot.tests["a::needs"].reason.as_deref(), Some("needs #AC"));
    }

    #[test]
    fn tests_that_a_filter_keeps_out_are_no_results() {
        let mut reports = reports();
        // Of the two tests only the one that skips is left, and it is kept out.
        reports.drain(3..5);
        let boot = boot("6.1.0-56-cloud-amd64", reports);
        assert!(boot.tests.is_empty());
        assert_eq!(boot.failures(), ["no test has this name"]);
    }

    #[test]
    fn long_messages_are_shown_in_part() {
        assert_eq!(beginning("a\nb"), "a\nb");
        let long = "line\n".repeat(100);
        assert_eq!(beginning(&long).lines().count(), MESSAGE_LINES + 1);
    }

    #[test]
    fn an_early_end_is_a_failure() {
        for kept in 0..reports().len() - 1 {
            let boot = boot("6.1.0-56-cloud-amd64", reports()[..kept].to_vec());
            assert_eq!(boot.failures().len(), 1, "{kept}");
            assert!(boot.is_hang());
        }
    }

    #[test]
    fn a_failed_test_is_a_failure_but_no_hang() {
        let mut reports = reports();
        reports.insert(
            4,
            Report::Test {
                test: "a::fails".to_owned(),
                result: "FAILED".to_owned(),
            },
        );
        let boot = boot("6.1.0-56-cloud-amd64", reports);
        assert_eq!(boot.failures(), ["a::fails"]);
        assert!(!boot.is_hang());
    }
}
