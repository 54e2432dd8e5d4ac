//! A real Prometheus looks at the agent.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child as Process, Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Test,
    agent::Agent,
    events::{Child, Event, kvm_guest::Guest},
    requirements::{
        self,
        Requirement::{AlignmentChecks, Kvm, Prometheus, Root},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "prometheus::promtool_has_nothing_to_say",
        needs: &[Root, Kvm, Prometheus, AlignmentChecks],
        run: promtool_has_nothing_to_say,
    },
    Test {
        name: "prometheus::a_query_answers_with_what_was_made",
        needs: &[Root, Kvm, Prometheus, AlignmentChecks],
        run: a_query_answers_with_what_was_made,
    },
];

const DEADLINE: Duration = Duration::from_secs(60);

/// A process with 1,234 alignment checks and a VM with 567 in its guest.
fn make_events() -> [Child; 2] {
    let process = Event::AlignmentCheck {
        count: 1234,
        threads: 2,
    };
    let guest = Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count: 567,
        vcpus: 1,
    };
    let mut children = [
        Child::spawn(&process, "prom-ac"),
        Child::spawn(&guest, "prom-guest"),
    ];
    for child in &mut children {
        child.run();
    }
    children
}

fn promtool_has_nothing_to_say() {
    let agent = Agent::start(&[]);
    let _children = make_events();
    let promtool = requirements::promtool().expect("checked");
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let exposition = agent.get("/metrics");
    check
        .stdin
        .take()
        .expect("stdin is a pipe")
        .write_all(exposition.as_bytes())
        .expect("promtool reads");
    let output = check.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"", "{output:?}");
    assert_eq!(output.stderr, b"", "{output:?}");
}

/// A Prometheus with its data in a folder of its own.
struct Server {
    process: Process,
    address: String,
    folder: PathBuf,
}

impl Server {
    fn scraping(agent: &Agent) -> Self {
        let folder = std::env::temp_dir().join(format!("splitlock-prometheus-{}", agent.pid()));
        fs::create_dir(&folder).expect("a new folder");
        let config = folder.join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
                 scrape_configs:\n\
                 - job_name: splitlock\n  static_configs: [{{targets: ['{}']}}]\n",
                agent.address()
            ),
        )
        .expect("the configuration is written");
        let mut process = Command::new(requirements::prometheus().expect("checked"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .args(["--web.listen-address=127.0.0.1:0", "--log.level=info"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus starts");
        let stderr = process.stderr.take().expect("stderr is a pipe");
        let (sender, addresses) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // "Listening on" has the port that the kernel chose.
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
        address.expect("prometheus listens");
        server
    }

    /// The value of a query that gives one series.
    fn query(&self, query: &str) -> Option<f64> {
        let url = format!("http://{}/api/v1/query", self.address);
        let body = ureq::get(url)
            .query("query", query)
            .call()
            .ok()?
            .into_body()
            .read_to_string()
            .ok()?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        let result = answer["data"]["result"].as_array()?;
        assert!(result.len() <= 1, "{query}: {answer:#}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    fn wait_for(&self, query: &str, expected: f64) {
        let start = Instant::now();
        loop {
            let found = self.query(query);
            if found == Some(expected) {
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{query}: {found:?}, expected {expected}"
            );
            thread::sleep(Duration::from_millis(100));
        }
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

fn a_query_answers_with_what_was_made() {
    let agent = Agent::start(&[]);
    let server = Server::scraping(&agent);
    let [process, guest] = make_events();
    server.wait_for(r#"up{job="splitlock"}"#, 1.0);
    server.wait_for(
        &format!(
            r#"splitlock_process_alignment_checks_total{{comm="prom-ac",pid="{}"}}"#,
            process.pid()
        ),
        1234.0,
    );
    let id = format!("{}-.*", guest.pid());
    server.wait_for(
        &format!(r#"splitlock_vm_ac_injected_total{{vm="prom-guest",id=~"{id}"}}"#),
        567.0,
    );
    server.wait_for(
        &format!(
            r#"splitlock_vm_userspace_exits_total{{vm="prom-guest",id=~"{id}",reason="shutdown"}}"#
        ),
        567.0,
    );
    server.wait_for("sum(splitlock_host_traps_total)", 0.0);
}
