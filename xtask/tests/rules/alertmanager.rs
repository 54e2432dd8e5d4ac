//! The example of routing and inhibition, in a real Alertmanager.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Test,
    files::dashboards,
    programs::Program::{Alertmanager, Amtool},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "alertmanager::amtool_accepts_the_configuration",
        needs: &[Amtool],
        run: amtool_accepts_the_configuration,
    },
    Test {
        name: "alertmanager::alerts_go_to_their_receivers",
        needs: &[Amtool],
        run: alerts_go_to_their_receivers,
    },
    Test {
        name: "alertmanager::one_cause_is_one_page",
        needs: &[Alertmanager],
        run: one_cause_is_one_page,
    },
];

const DEADLINE: Duration = Duration::from_secs(30);

fn configuration() -> PathBuf {
    dashboards("alertmanager/alertmanager.yaml")
}

fn amtool_accepts_the_configuration() {
    Amtool.succeeds(&["check-config"], &[&configuration()]);
}

fn alerts_go_to_their_receivers() {
    let file = format!("--config.file={}", configuration().display());
    for (receiver, labels) in [
        (
            "page",
            "alertname=SplitLockGuestOffends severity=critical id=a vm=web1",
        ),
        (
            "ticket",
            "alertname=SplitLockGuestOffends severity=warning id=a vm=web1",
        ),
        (
            "page",
            "alertname=SplitLockGuestKilled severity=critical instance=h1",
        ),
        (
            "ticket",
            "alertname=SplitLockWorkloadKilled severity=warning instance=h1 comm=a",
        ),
        (
            "ticket",
            "alertname=SplitLockHostBlind severity=warning instance=h1",
        ),
        (
            "page",
            "alertname=SplitLockProbesMissing severity=critical instance=h1",
        ),
        (
            "record",
            "alertname=SplitLockAgentLosesRecords severity=info instance=h1",
        ),
        ("ticket", "alertname=SomethingElse severity=critical"),
    ] {
        let verify = format!("--verify.receivers={receiver}");
        let mut arguments = vec!["config", "routes", "test", &file, &verify];
        arguments.extend(labels.split(' '));
        Amtool.succeeds(&arguments, &[]);
    }
}

/// What fires, what it keeps quiet, and what it must not.
struct Cause {
    source: &'static str,
    quiet: &'static [&'static str],
    heard: &'static [&'static str],
}

/// Labels that an alert has as `key=value`, after its name.
const CAUSES: &[Cause] = &[
    Cause {
        source: "SplitLockGuestOffends severity=critical vm=web1 id=a",
        quiet: &["SplitLockGuestOffends severity=warning vm=web1 id=a"],
        heard: &[
            "SplitLockGuestOffends severity=warning vm=web2 id=b",
            "SplitLockGuestOffends severity=warning vm=web1 id=a cluster=other",
        ],
    },
    Cause {
        source: "SplitLockGuestKilled severity=critical instance=h1 vm=web1 id=a",
        quiet: &["SplitLockGuestOffends severity=warning vm=web1 id=a"],
        heard: &[
            "SplitLockGuestOffends severity=critical vm=web2 id=b",
            "SplitLockWorkloadKilled severity=warning instance=h1 comm=a unit=u",
        ],
    },
    Cause {
        source: "SplitLockGuestKilled severity=critical instance=h1",
        quiet: &[],
        heard: &["SplitLockGuestOffends severity=warning vm=web1 id=a"],
    },
    Cause {
        source: "SplitLockGuestOffends severity=warning vm=web1 id=a",
        quiet: &["SplitLockReportedOnce severity=warning instance=h1 vm=web1 id=a"],
        heard: &["SplitLockReportedOnce severity=warning instance=h1 comm=a unit=u"],
    },
    Cause {
        source: "SplitLockWorkloadKilled severity=warning instance=h1 comm=a unit=u",
        quiet: &["SplitLockWorkloadReturns severity=warning instance=h1 comm=a"],
        heard: &[
            "SplitLockWorkloadReturns severity=warning instance=h1 comm=b",
            "SplitLockWorkloadReturns severity=warning instance=h2 comm=a",
        ],
    },
    Cause {
        source: "SplitLockProbesMissing severity=critical instance=h1",
        quiet: &["SplitLockHostBlind severity=warning instance=h1 origin=user"],
        heard: &["SplitLockHostBlind severity=warning instance=h2 origin=user"],
    },
    Cause {
        source: "SplitLockAgentDown severity=warning instance=h1",
        quiet: &[
            "SplitLockHostBlind severity=warning instance=h1 origin=guest",
            "SplitLockDetectionChanged severity=warning instance=h1",
            "SplitLockAgentLosesCounts severity=warning instance=h1 cause=call_untracked",
            "SplitLockWorkloadOffends severity=warning instance=h1 comm=a unit=u",
        ],
        heard: &[
            "SplitLockGuestKilled severity=critical instance=h1 vm=web1 id=a",
            "SplitLockHostBlind severity=warning instance=h2 origin=guest",
        ],
    },
];

/// These compare nothing but the cluster, so that they come last.
const FLEET: &[Cause] = &[
    Cause {
        source: "SplitLockNoAgents severity=critical cluster=a",
        quiet: &["SplitLockAgentAbsent severity=warning instance=h7 host=h7 cluster=a"],
        heard: &[
            "SplitLockHostBlind severity=warning instance=h7 origin=user cluster=a",
            "SplitLockAgentAbsent severity=warning instance=h8 host=h8 cluster=b",
            "SplitLockAgentDown severity=warning instance=h8 cluster=b",
        ],
    },
    Cause {
        source: "SplitLockRulesIncomplete severity=critical missing=x cluster=a",
        quiet: &["SplitLockNoAgents severity=critical cluster=a"],
        heard: &["SplitLockNoAgents severity=critical cluster=c"],
    },
    // Servers without such a label are one cluster.
    Cause {
        source: "SplitLockNoAgents severity=critical",
        quiet: &["SplitLockAgentDown severity=warning instance=h9"],
        heard: &[],
    },
];

fn one_cause_is_one_page() {
    let server = Server::start();
    for (number, cause) in CAUSES.iter().enumerate() {
        server.check(cause, &format!("job=cause{number}"));
    }
    for cause in FLEET {
        server.check(cause, "");
    }
}

/// An Alertmanager on a free port, with its data in a folder of its own.
struct Server {
    process: Child,
    address: String,
    folder: PathBuf,
}

impl Server {
    fn start() -> Self {
        let folder =
            std::env::temp_dir().join(format!("splitlock-alertmanager-{}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let mut process = Command::new(Alertmanager.path().expect("checked"))
            .arg(format!("--config.file={}", configuration().display()))
            .arg(format!("--storage.path={}", folder.display()))
            .args([
                "--web.listen-address=127.0.0.1:0",
                "--cluster.listen-address=",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("alertmanager starts");
        let stderr = process.stderr.take().expect("stderr is a pipe");
        let (sender, addresses) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // It has the port that the kernel chose.
                if line.contains("Listening on")
                    && let Some((_, rest)) = line.split_once("address=")
                {
                    let _ = sender.send(rest.split_whitespace().next().unwrap_or("").to_owned());
                }
            }
        });
        let address = addresses.recv_timeout(DEADLINE);
        let server = Self {
            process,
            address: address.clone().unwrap_or_default(),
            folder,
        };
        address.expect("alertmanager listens");
        server
    }

    fn check(&self, cause: &Cause, job: &str) {
        let Cause {
            source,
            quiet,
            heard,
        } = cause;
        for alert in quiet.iter().chain(*heard) {
            self.fire(alert, job);
        }
        self.fire(source, job);
        for (alerts, expected) in [(quiet, true), (heard, false)] {
            for alert in *alerts {
                self.wait_until(alert, job, expected);
            }
        }
    }

    fn fire(&self, alert: &str, job: &str) {
        let mut labels = String::new();
        for (key, value) in pairs(alert, job) {
            let comma = if labels.is_empty() { "" } else { "," };
            write!(labels, "{comma}\"{key}\":\"{value}\"").expect("a string takes it");
        }
        let url = format!("http://{}/api/v2/alerts", self.address);
        ureq::post(url)
            .header("Content-Type", "application/json")
            .send(format!("[{{\"labels\":{{{labels}}}}}]"))
            .expect("it is taken");
    }

    /// Whether an alert is inhibited shows once the inhibiting one has come through.
    fn wait_until(&self, alert: &str, job: &str, expected: bool) {
        let start = Instant::now();
        while self.is_inhibited(alert, job) != Some(expected) {
            assert!(
                start.elapsed() < DEADLINE,
                "{alert} is not {}",
                if expected { "quiet" } else { "heard" }
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_inhibited(&self, alert: &str, job: &str) -> Option<bool> {
        let url = format!("http://{}/api/v2/alerts", self.address);
        let mut answer = ureq::get(url).call().expect("it answers");
        let text = answer.body_mut().read_to_string().expect("text");
        let alerts: Value = serde_json::from_str(&text).expect("JSON");
        let wanted = pairs(alert, job);
        let found = alerts.as_array()?.iter().find(|alert| {
            let labels = alert["labels"].as_object().expect("labels");
            labels.len() == wanted.len()
                && wanted
                    .iter()
                    .all(|(key, value)| labels.get(*key).is_some_and(|found| found == value))
        })?;
        Some(!found["status"]["inhibitedBy"].as_array()?.is_empty())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; its folder goes in any case.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Labels and their values.
fn pairs<'a>(alert: &'a str, job: &'a str) -> Vec<(&'a str, &'a str)> {
    let (name, labels) = alert.split_once(' ').expect("a name and labels");
    let labels = labels.split(' ').chain(job.split_terminator(' '));
    let labels = labels.map(|label| label.split_once('=').expect("key=value"));
    [("alertname", name)].into_iter().chain(labels).collect()
}
