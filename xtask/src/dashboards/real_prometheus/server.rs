//! A real Prometheus that has the history of the agents.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    agents::{BEGIN, LENGTH},
    history,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// The programs, or why there are none.
pub fn programs() -> Result<(OsString, OsString), &'static str> {
    match (
        env::var_os("SPLITLOCK_PROMETHEUS"),
        env::var_os("SPLITLOCK_PROMTOOL"),
    ) {
        (Some(prometheus), Some(promtool)) => Ok((prometheus, promtool)),
        _ => Err("needs prometheus and promtool: cargo xtask test brings them"),
    }
}

/// Says why a test does not run, where the test runner does not swallow it; fails where none may
/// skip.
pub fn skip(test: &str, why: &str) {
    assert!(
        env::var_os("SPLITLOCK_TESTS_MUST_RUN").is_none(),
        "{test} {why}"
    );
    // A line that cannot be written is no reason to fail.
    let _ = writeln!(io::stderr(), "{test}: skipped: {why}");
}

/// One that runs until it is dropped.
pub struct Server {
    process: Child,
    address: String,
    folder: PathBuf,
}

impl Server {
    /// Starts one.
    pub fn start((prometheus, promtool): (OsString, OsString)) -> Self {
        let folder = env::temp_dir().join(format!("splitlock-dashboards-{}", process::id()));
        let data = folder.join("data");
        fs::create_dir_all(&folder).unwrap();
        let history = folder.join("history.txt");
        fs::write(&history, history::openmetrics()).unwrap();
        let made = Command::new(promtool)
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&history, &data])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let config = folder.join("prometheus.yml");
        fs::write(&config, "scrape_configs: []\n").unwrap();
        let mut process = Command::new(prometheus)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            // The history is older than what is kept by default.
            .arg("--storage.tsdb.retention.time=100y")
            .args(["--web.listen-address=127.0.0.1:0", "--log.level=info"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        // It has the port that the kernel chose.
        let address = log.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("address=")?;
            let listens = line.contains("Listening on");
            listens.then(|| rest.split_whitespace().next().map(str::to_owned))?
        });
        // The pipe must not fill up.
        thread::spawn(move || log.for_each(drop));
        let server = Self {
            process,
            address: address.unwrap_or_default(),
            folder,
        };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let start = Instant::now();
        let url = format!("http://{}/-/ready", self.address);
        while let Err(error) = ureq::get(&url).call() {
            assert!(start.elapsed() < DEADLINE, "{url}: {error}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The series that a query gives at the end of the history.
    pub fn at_the_end(&self, query: &str) -> Vec<Value> {
        self.ask("query", query, &[("time", BEGIN + LENGTH)])
    }

    /// The series that a query gives over the history's second half.
    pub fn over_the_last_hour(&self, query: &str) -> Vec<Value> {
        let end = BEGIN + LENGTH;
        let times = [("start", end - 3600), ("end", end), ("step", 60)];
        self.ask("query_range", query, &times)
    }

    fn ask(&self, how: &str, query: &str, times: &[(&str, u64)]) -> Vec<Value> {
        let url = format!("http://{}/api/v1/{how}", self.address);
        let mut request = ureq::get(url).query("query", query);
        for (name, time) in times {
            request = request.query(name, time.to_string());
        }
        let answer = request
            .config()
            .http_status_as_error(false)
            .build()
            .call()
            .unwrap()
            .into_body()
            .read_to_string()
            .unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let Value::Array(series) = &answer["data"]["result"] else {
            panic!("{query}\n{answer:#}");
        };
        series.clone()
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
