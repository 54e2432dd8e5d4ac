//! What `cargo xtask bench` has this program measure: `real_events measure WHAT COUNT ROUNDS` prints
//! a JSON object for each figure of each round.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use super::{
    agent::Agent,
    crowds::crowd,
    events::{Child, Event, crowd::Each},
    figures::{Figures, median},
    storm,
};

/// Scrapes of which one round's figure is the median.
const SCRAPES: usize = 21;

/// Measures what the words say.
pub fn main(words: &[String]) -> ExitCode {
    match measure(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("real_events measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [what, count, rounds] = words[..] else {
        bail!("usage: real_events measure storm|subjects|offenders COUNT ROUNDS");
    };
    let make = match what {
        "storm" => |count| storm::make(u64::from(count)),
        "subjects" => subjects,
        "offenders" => offenders,
        _ => bail!("{what} is nothing to measure; storm, subjects and offenders are"),
    };
    let count = count.parse().with_context(|| format!("COUNT: {count}"))?;
    let rounds = rounds
        .parse()
        .with_context(|| format!("ROUNDS: {rounds}"))?;
    for round in 0..rounds {
        make(count).print(round);
    }
    Ok(())
}

/// So many subjects with series of their own.
fn subjects(count: u32) -> Figures {
    let mut figures = Figures::default();
    let agent = Agent::start(&["--limit.processes", &count.to_string()]);
    crowd(Each::AlignmentCheck, "many", count);
    measure_scrapes(&agent, count, "ended", &mut figures);
    drop(agent);
    let agent = Agent::start(&["--limit.processes", &count.to_string()]);
    let mut living = Child::spawn(&Event::Gathering { count }, "keeper");
    living.run();
    measure_scrapes(&agent, count, "living", &mut figures);
    living.end();
    figures
}

fn measure_scrapes(agent: &Agent, count: u32, what: &str, figures: &mut Figures) {
    let series = agent.wait_for("all subjects", |metrics| {
        metrics.count(r#"splitlock_tracked_subjects{kind="process"}"#) == u64::from(count)
    });
    let of = format!("{count} {what} subjects");
    figures.add(format!("series of {of}"), series.len() as f64);
    for (encodings, name) in [("identity", "plain"), ("gzip", "gzip")] {
        let mut bytes = 0;
        let times: Vec<f64> = (0..SCRAPES)
            .map(|_| {
                let start = Instant::now();
                bytes = scrape(agent, encodings);
                start.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        figures.add(
            format!("milliseconds of a scrape of {of}, {name}"),
            median(&times),
        );
        figures.add(
            format!("KiB of a scrape of {of}, {name}"),
            bytes as f64 / 1024.0,
        );
    }
    figures.add(format!("MiB resident with {of}"), resident_mib(agent));
}

/// So many subjects through a limit of 1,000: the last ten thousandth takes no more than the first.
fn offenders(count: u32) -> Figures {
    let agent = Agent::start(&["--limit.processes", "1000"]);
    let mut figures = Figures::default();
    let tenth = count / 10;
    for tenths in 1..=10 {
        crowd(Each::AlignmentCheck, "many", tenth);
        let metrics = agent.wait_for("an empty ledger", |metrics| {
            metrics.count(r#"splitlock_ledger_entries{ledger="traps"}"#) == 0
        });
        assert_eq!(
            metrics.count(r#"splitlock_tracked_subjects{kind="process"}"#),
            1000
        );
        let lost = metrics.count(r#"splitlock_lost_total{cause="trap_ledger_full"}"#);
        assert_eq!(lost, 0);
        if tenths == 1 || tenths == 10 {
            figures.add(
                format!("MiB resident after {} subjects", tenth * tenths),
                resident_mib(&agent),
            );
        }
    }
    figures
}

/// Scrapes once, and gives the bytes of the body.
fn scrape(agent: &Agent, encodings: &str) -> usize {
    let mut stream = TcpStream::connect(agent.address()).expect("the agent listens");
    let request =
        format!("GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept-Encoding: {encodings}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("the agent reads");
    let mut answer = vec![];
    stream.read_to_end(&mut answer).expect("the agent closes");
    assert!(answer.starts_with(b"HTTP/1.0 200"));
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    answer.len() - head.expect("a head") - 4
}

fn resident_mib(agent: &Agent) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("it runs");
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .expect("a field of every kernel");
    kib.parse::<f64>().expect("a number") / 1024.0
}
