//! The agent under test: the real binary, as a process of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// For anything that the agent is to do.
const DEADLINE: Duration = Duration::from_secs(30);

/// Path of the agent's binary: cargo's, or on another machine than the build's, `SPLITLOCK_AGENT`.
pub fn binary() -> PathBuf {
    env::var_os("SPLITLOCK_AGENT").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_splitlock-agent")),
        PathBuf::from,
    )
}

/// A running agent. It is killed when this value is dropped.
pub struct Agent {
    process: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Agent {
    /// Starts an agent with `args` on a free port and waits until it serves.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        Self::start_prepared(args, |_command| {})
    }

    /// The same, after a change to the command that starts it.
    #[track_caller]
    pub fn start_prepared(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        Self::launch("127.0.0.1:0", args, prepare)
    }

    /// The same at an address with a port that is free.
    #[track_caller]
    pub fn start_on(address: &str, args: &[&str]) -> Self {
        Self::launch(address, args, |_command| {})
    }

    /// Starts one at an address of the test's choice.
    #[track_caller]
    pub fn start_at(address: SocketAddr) -> Self {
        Self::launch(&address.to_string(), &[], |_command| {})
    }

    #[track_caller]
    fn launch(address: &str, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(binary());
        command
            .args(["run", "--web.listen-address", address])
            .args(["--log.format", "json"])
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        prepare(&mut command);
        let mut process = command.spawn().expect("the agent's binary starts");
        let stderr = process.stderr.take().expect("stderr is a pipe");
        let log = Arc::new(Mutex::new(vec![]));
        let (sender, addresses) = channel();
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str::<Value>(&line) else {
                    eprintln!("{line}");
                    continue;
                };
                if let Some(address) = served_address(&value) {
                    let _ = sender.send(address);
                }
                lines.lock().expect("no reader panics").push(value);
            }
        });
        let address = wait_for_address(&addresses, &mut process);
        Self {
            process,
            address,
            log,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().expect("no writer panics").clone()
    }

    /// The body of a path, which has to answer with 200.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.address);
        ureq::get(&url)
            .call()
            .unwrap_or_else(|error| panic!("{url}: {error}"))
            .into_body()
            .read_to_string()
            .unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// Its metrics.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics"))
    }

    /// Its metrics, for who sends this line in the head of the request.
    #[track_caller]
    pub fn metrics_as(&self, line: &str) -> Metrics {
        let (name, value) = line.trim_end().split_once(": ").expect("a header");
        let url = format!("http://{}/metrics", self.address);
        let answer = ureq::get(&url).header(name, value).call();
        let text = answer
            .and_then(|answer| answer.into_body().read_to_string())
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        Metrics::parse(&text)
    }

    /// Its snapshot.
    #[track_caller]
    pub fn snapshot(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/snapshot")).expect("the snapshot is JSON")
    }

    /// How a hook is attached; `none` where it is not.
    #[track_caller]
    pub fn via(&self, hook: &str) -> String {
        let start = format!(r#"splitlock_probe_attached{{probe="{hook}",via=""#);
        let metrics = self.metrics();
        metrics
            .family("splitlock_probe_attached")
            .keys()
            .find_map(|series| series.strip_prefix(&start)?.split('"').next())
            .unwrap_or_else(|| panic!("no hook {hook}"))
            .to_owned()
    }

    /// Waits until its metrics fulfil a condition.
    #[track_caller]
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Metrics) -> bool) -> Metrics {
        let start = Instant::now();
        loop {
            let metrics = self.metrics();
            if condition(&metrics) {
                return metrics;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{what} did not come: {metrics:#?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ids of the BPF programs that it holds.
    pub fn programs(&self) -> BTreeSet<u32> {
        let programs = programs_of(self.pid());
        assert!(!programs.is_empty(), "the agent holds no program");
        programs
    }

    /// Sends a signal and waits for the end; gives the time that it took.
    #[track_caller]
    pub fn end(mut self, signal: i32) -> (ExitStatus, Duration) {
        let start = Instant::now();
        // SAFETY: the process is this value's child and was not waited for, so its pid is its own.
        let status = unsafe { libc::kill(self.process.id().cast_signed(), signal) };
        assert_eq!(status, 0, "kill");
        let status = self.wait_for_end(DEADLINE);
        (status, start.elapsed())
    }

    /// Waits for an end that nobody asked for.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("the agent is our child") {
                return status;
            }
            assert!(start.elapsed() < limit, "the agent did not end");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ids of the BPF programs that a process holds; none where it has ended.
pub fn programs_of(pid: u32) -> BTreeSet<u32> {
    fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("prog_id:"))?;
            line.trim().parse().ok()
        })
        .collect()
}

fn served_address(line: &Value) -> Option<SocketAddr> {
    let message = line.get("message")?.as_str()?;
    let rest = message.strip_prefix("serving on http")?;
    let rest = rest.trim_start_matches('s').strip_prefix("://")?;
    rest.split('/').next()?.parse().ok()
}

#[track_caller]
fn wait_for_address(addresses: &Receiver<SocketAddr>, process: &mut Child) -> SocketAddr {
    match addresses.recv_timeout(DEADLINE) {
        Ok(address) => address,
        Err(error) => {
            let _ = process.kill();
            let status = process.wait();
            panic!("the agent did not serve ({error}); its end: {status:?}");
        }
    }
}

/// A read exposition: series to value.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let series = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').expect("series and value");
                (series.to_owned(), value.parse().expect("a number"))
            });
        let mut all = BTreeMap::new();
        for (name, value) in series {
            let earlier = all.insert(name.clone(), value);
            assert_eq!(earlier, None, "{name} comes twice");
        }
        Self(all)
    }

    /// The value of a series as the exposition writes it; `None` where it is absent.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// The value of a counter; 0 where it is absent.
    pub fn count(&self, series: &str) -> u64 {
        self.get(series).map_or(0, |value| {
            assert!(value.fract() == 0.0 && value >= 0.0, "{series} {value}");
            value as u64
        })
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All series of a family.
    pub fn family(&self, name: &str) -> BTreeMap<&str, f64> {
        self.0
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .map(|(series, value)| (series.as_str(), *value))
            .collect()
    }

    /// All series that have a label with this value.
    pub fn with_label(&self, label: &str, value: &str) -> BTreeMap<&str, f64> {
        let first = format!("{{{label}=\"{value}\"");
        let later = format!(",{label}=\"{value}\"");
        self.0
            .iter()
            .filter(|(series, _)| series.contains(&first) || series.contains(&later))
            .map(|(series, value)| (series.as_str(), *value))
            .collect()
    }
}
