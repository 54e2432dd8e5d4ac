//! A real Prometheus that scrapes the agent, and whatever else.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child as Process, Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{agent::Agent, requirements};

const DEADLINE: Duration = Duration::from_secs(60);

/// A Prometheus with its data in a folder of its own.
pub struct Server {
    process: Process,
    address: String,
    folder: PathBuf,
}

impl Server {
    /// Starts one that scrapes the agent, and others under the job `other`.
    pub fn scraping(agent: &Agent, others: &[SocketAddr]) -> Self {
        Self::scraping_as(agent, "", others)
    }

    /// The same with more to say about how to scrape the agent, in YAML with braces.
    pub fn scraping_as(agent: &Agent, how: &str, others: &[SocketAddr]) -> Self {
        let others: Vec<String> = others.iter().map(SocketAddr::to_string).collect();
        let folder = std::env::temp_dir().join(format!("splitlock-prometheus-{}", agent.pid()));
        fs::create_dir(&folder).expect("a new folder");
        let config = folder.join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
                 scrape_configs:\n\
                 - {{job_name: splitlock, static_configs: [{{targets: ['{}']}}]{how}}}\n\
                 - job_name: other\n  static_configs: [{{targets: {others:?}}}]\n",
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
    pub fn query(&self, query: &str) -> Option<f64> {
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

    /// Waits until a query gives one series with this value.
    pub fn wait_for(&self, query: &str, expected: f64) {
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
