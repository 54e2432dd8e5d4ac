//! Two hours of scrapes of the agents, with nothing in them that differs from run to run.

use std::fmt::Write as _;

use prometheus::process_collector::ProcessCollector;
use splitlock_agent::export::exposition;

use super::agents::{AGENTS, Agent, BEGIN, LENGTH};

/// Seconds between two scrapes.
const INTERVAL: u64 = 30;

/// All scrapes, in the format that promtool makes blocks of.
pub fn openmetrics() -> String {
    let own = ProcessCollector::for_self();
    let mut text = String::new();
    for time in (0..=LENGTH).step_by(INTERVAL as usize) {
        for (place, agent) in AGENTS.iter().enumerate() {
            let target = format!("job=\"{}\",instance=\"{}\"", agent.job, agent.instance);
            let at = BEGIN + time;
            let snapshot = (agent.at)(time);
            let up = u8::from(snapshot.is_some());
            writeln!(text, "up{{{target}}} {up} {at}").unwrap();
            let Some(snapshot) = snapshot else { continue };
            let exposition = exposition::encode(&snapshot, &own).unwrap();
            let exposition = String::from_utf8(exposition).unwrap();
            for line in exposition.lines().filter(|line| !line.starts_with('#')) {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value =
                    of_an_agent(series, (agent, place), time).unwrap_or_else(|| value.to_owned());
                match series.split_once('{') {
                    Some((name, labels)) => {
                        let labels = of_a_release(name).unwrap_or(labels);
                        writeln!(text, "{name}{{{target},{labels} {value} {at}").unwrap();
                    }
                    None => writeln!(text, "{series}{{{target}}} {value} {at}").unwrap(),
                }
            }
        }
    }
    text + "# EOF\n"
}

/// What an agent's process costs, in place of what this test costs: 2 to 4 ms of CPU time in a
/// second and 10 to 12 MiB.
fn of_an_agent(series: &str, (agent, place): (&Agent, usize), time: u64) -> Option<String> {
    let place = place as u64;
    match series {
        "process_cpu_seconds_total" => {
            let milliseconds = time * (2 + place % 3);
            Some(format!("{}", milliseconds as f64 / 1000.0))
        }
        "process_resident_memory_bytes" => Some(format!("{}", (10 + place % 3) << 20)),
        "process_start_time_seconds" => Some(BEGIN.strict_add_signed(agent.started).to_string()),
        _ => None,
    }
}

/// The labels of a release, in place of those of the commit under test.
fn of_a_release(family: &str) -> Option<&'static str> {
    (family == "splitlock_build_info").then_some("version=\"0.1.0\",revision=\"3b4ecac\"}")
}
