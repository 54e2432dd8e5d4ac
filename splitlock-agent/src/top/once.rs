//! One plain table, or the same as JSON.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _, stdout},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use ratatui::{crossterm::terminal, text::Line};
use serde::Serialize;

use super::{
    answer::{Host, Named},
    columns::{self, Heads, UNLIMITED},
    header,
    order::{self, Sort},
    picture::{Kind, Picture, Row},
    source::Source,
    theme::Theme,
};
use crate::{
    cli::top::{Color, TopOptions},
    subjects::SubjectId,
};

/// Version of the JSON; it rises when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// Prints it.
///
/// # Errors
/// There is no answer, or nobody takes the table.
pub fn print(options: &TopOptions, source: &Source) -> Result<()> {
    let look = |before: Option<&Picture>| -> Result<Picture> {
        let answer = source.snapshot().map_err(anyhow::Error::msg)?;
        Ok(Picture::new(answer, Instant::now(), before))
    };
    let first = look(None)?;
    thread::sleep(options.interval);
    let picture = look(Some(&first))?;
    let text = if options.json {
        json(&picture, options, source.name())?
    } else {
        let width = stdout()
            .is_terminal()
            .then(|| terminal::size().map_or(80, |(width, _)| usize::from(width)));
        table(&picture, options, source.name(), width)
    };
    match stdout().lock().write_all(text.as_bytes()) {
        // `top --once | head` has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

/// The rows to print.
fn chosen<'a>(picture: &'a Picture, options: &TopOptions, kind: Kind) -> Vec<&'a Row> {
    let sort = Sort {
        column: options.sort,
        reversed: options.reverse,
    };
    let rows = picture.rows(kind);
    order::shown(rows, sort, picture.counts_exits, &options.filter)
        .into_iter()
        .take(options.limit.unwrap_or(usize::MAX))
        .map(|index| &rows[index])
        .collect()
}

fn table(picture: &Picture, options: &TopOptions, source: &str, width: Option<usize>) -> String {
    let theme = Theme::of(Color::Never);
    let mut lines = vec![format!("{source}, Linux {}", picture.host.kernel)];
    let words = header::words(picture, theme, width.unwrap_or(UNLIMITED));
    lines.extend(words.iter().map(plain));
    if picture.restarted {
        lines.push("The agent started anew between the two looks: there are no rates.".to_owned());
    }
    let heads = Heads {
        counts_exits: picture.counts_exits,
    };
    let sort = Sort {
        column: options.sort,
        reversed: options.reverse,
    };
    for kind in Kind::ALL {
        let rows = chosen(picture, options, kind);
        let all = picture.rows(kind).len();
        lines.push(String::new());
        if rows.is_empty() {
            lines.push(match (kind, all) {
                (Kind::Vm, 0) => "No VM has run since the agent started.".to_owned(),
                (Kind::Process, 0) => {
                    "No process has had a lock trapped, or an alignment check.".to_owned()
                }
                (Kind::Vm, all) => format!("None of {all} VMs is shown."),
                (Kind::Process, all) => format!("None of {all} processes is shown."),
            });
            continue;
        }
        let columns = columns::fitting(kind, width.unwrap_or(UNLIMITED), sort, &rows, heads);
        lines.push(columns::head(kind, &columns, sort, heads));
        lines.extend(rows.iter().map(|row| columns::row(row, &columns, heads)));
        if rows.len() < all {
            lines.push(format!("{} of {all} are shown.", rows.len()));
        }
    }
    lines
        .into_iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn plain(line: &Line<'_>) -> String {
    line.spans.iter().map(|span| &*span.content).collect()
}

/// What scripts get. A rate is null where it is not known.
#[derive(Serialize)]
struct Json<'a> {
    schema: u32,
    source: &'a str,
    taken_at: f64,
    /// Between the two looks; null where no rates were made of them.
    seconds: Option<f64>,
    restarted: bool,
    kernel: &'a str,
    detection_mode: &'a str,
    sees: BTreeMap<&'a str, bool>,
    host_traps: Vec<JsonTraps<'a>>,
    lost: BTreeMap<&'a str, u64>,
    hooks_not_attached: Vec<&'a str>,
    vms: Vec<JsonRow<'a>>,
    processes: Vec<JsonRow<'a>>,
}

#[derive(Serialize)]
struct JsonTraps<'a> {
    origin: &'a str,
    trap: &'a str,
    outcome: &'a str,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<f64>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    name: &'a str,
    /// The VM's; empty for a process.
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(flatten)]
    subject: SubjectId,
    alive: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    vmm: &'a str,
    exe: &'a str,
    unit: &'a str,
    container_id: &'a str,
    pod_uid: &'a str,
    cgroup: &'a str,
    traps: Vec<JsonTraps<'a>>,
    split_locks_per_second: Option<f64>,
    bus_locks_per_second: Option<f64>,
    delay_seconds: f64,
    delay_seconds_per_second: Option<f64>,
    /// Alignment checks of a process, or those that KVM handed to a guest.
    alignment_checks: u64,
    alignment_checks_per_second: Option<f64>,
    exits: BTreeMap<&'a str, JsonReason>,
    userspace_exits: BTreeMap<&'a str, JsonReason>,
    last_trap: Option<f64>,
}

#[derive(Serialize)]
struct JsonReason {
    count: u64,
    per_second: Option<f64>,
}

fn json(picture: &Picture, options: &TopOptions, source: &str) -> Result<String> {
    let Host {
        kernel,
        detection_mode,
        sees,
        ..
    } = &picture.host;
    let rows = |kind| -> Vec<JsonRow<'_>> {
        let rows = chosen(picture, options, kind);
        rows.into_iter().map(json_row).collect()
    };
    let all = Json {
        schema: SCHEMA,
        source,
        taken_at: picture.taken_at,
        seconds: picture.seconds,
        restarted: picture.restarted,
        kernel,
        detection_mode,
        sees: sees
            .iter()
            .map(|(origin, sees)| (&**origin, *sees))
            .collect(),
        host_traps: picture
            .totals
            .iter()
            .map(|total| JsonTraps {
                origin: &total.traps.origin,
                trap: &total.traps.trap,
                outcome: &total.traps.outcome,
                count: total.traps.count,
                per_second: total.rate,
            })
            .collect(),
        lost: picture
            .lost
            .iter()
            .map(|lost| (&*lost.cause, lost.count))
            .collect(),
        hooks_not_attached: picture
            .probes
            .iter()
            .filter(|probe| probe.via.is_none())
            .map(|probe| &*probe.probe)
            .collect(),
        vms: rows(Kind::Vm),
        processes: rows(Kind::Process),
    };
    Ok(serde_json::to_string(&all).context("writing JSON")? + "\n")
}

fn json_row(row: &Row) -> JsonRow<'_> {
    let rates = row.rates.as_ref();
    JsonRow {
        name: row.name(),
        id: &row.told.id,
        subject: SubjectId {
            pid: row.told.pid,
            start_ticks: row.told.start_ticks,
        },
        alive: row.told.alive,
        vmm: &row.told.vmm,
        exe: &row.told.exe,
        unit: &row.told.unit,
        container_id: &row.told.container_id,
        pod_uid: &row.told.pod_uid,
        cgroup: &row.told.cgroup,
        traps: row
            .told
            .traps
            .iter()
            .map(|traps| JsonTraps {
                origin: &traps.origin,
                trap: &traps.trap,
                outcome: &traps.outcome,
                count: traps.count,
                per_second: None,
            })
            .collect(),
        split_locks_per_second: rates.map(|rates| rates.split),
        bus_locks_per_second: rates.map(|rates| rates.bus),
        delay_seconds: row.tally.delay_ns as f64 / 1e9,
        delay_seconds_per_second: rates.map(|rates| rates.delay),
        alignment_checks: row.tally.checks,
        alignment_checks_per_second: rates.map(|rates| rates.checks),
        exits: reasons(&row.told.exits, rates.map(|rates| &rates.by_reason)),
        userspace_exits: reasons(
            &row.told.userspace_exits,
            rates.map(|rates| &rates.returns_by_reason),
        ),
        last_trap: row.told.last_trap,
    }
}

fn reasons<'a>(counts: &'a Named, rates: Option<&Vec<f64>>) -> BTreeMap<&'a str, JsonReason> {
    counts
        .iter()
        .enumerate()
        .map(|(index, (reason, count))| {
            let reason_rate = JsonReason {
                count: *count,
                per_second: rates.and_then(|rates| rates.get(index)).copied(),
            };
            (&**reason, reason_rate)
        })
        .collect()
}

#[cfg(test)]
mod tests;
