//! The page for a person: what is happening on this host, without a script.

use std::fmt::Write as _;

use crate::table::snapshot::{ProbeRow, Snapshot, Story, TrapCount};

/// Rows of a table; the rest is counted.
const ROWS: usize = 50;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
color:#1a1d21;background:#fff}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
table{border-collapse:collapse}th{text-align:left;font-weight:600}\
th,td{padding:.25rem 2rem .25rem 0;border-bottom:1px solid #d8dce0;vertical-align:top}\
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums;padding-right:2rem}.q{color:#5c646c}\
.box{overflow-x:auto}code{font-size:.9em}\
@media(prefers-color-scheme:dark){body{color:#e4e6e8;background:#16181b}\
th,td{border-color:#3a3f45}.q{color:#9aa2aa}a{color:#8ab4f8}}";

/// Renders the page.
pub fn render(snapshot: &Snapshot, telemetry_path: &str) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    page.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width\">");
    page.raw("<title>splitlock-agent</title><style>");
    page.raw(STYLE);
    page.raw("</style></head><body><h1>splitlock-agent</h1><p class=\"q\">version ");
    page.text(env!("CARGO_PKG_VERSION"));
    page.raw(" on Linux ");
    page.text(&snapshot.host.kernel);
    page.raw(" · <a href=\"");
    page.text(telemetry_path);
    page.raw("\">metrics</a> · <a href=\"/api/v1/snapshot\">snapshot (JSON)</a></p>");
    detection(&mut page, snapshot);
    host(&mut page, snapshot);
    vms(&mut page, snapshot);
    processes(&mut page, snapshot);
    recent(&mut page, snapshot);
    probes(&mut page, &snapshot.probes);
    losses(&mut page, snapshot);
    page.raw("</body></html>\n");
    page.0
}

/// HTML that is being written. Only [`Page::raw`] takes markup.
struct Page(String);

/// A cell of a table.
enum Cell<'a> {
    Text(&'a str),
    Number(u64),
}

impl Page {
    fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                _ => self.0.push(character),
            }
        }
    }

    fn number(&mut self, number: u64) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{number}");
    }

    fn table<'a>(&mut self, heads: &[&'static str], rows: &[Vec<Cell<'a>>], nothing: &'static str) {
        let count = rows.len();
        if count == 0 {
            self.raw("<p class=\"q\">");
            self.text(nothing);
            self.raw("</p>");
            return;
        }
        self.raw("<div class=\"box\"><table><thead><tr>");
        for (column, head) in heads.iter().enumerate() {
            let is_number = matches!(rows[0].get(column), Some(Cell::Number(_)));
            self.raw(if is_number {
                "<th class=\"n\">"
            } else {
                "<th>"
            });
            self.text(head);
            self.raw("</th>");
        }
        self.raw("</tr></thead><tbody>");
        for row in rows.iter().take(ROWS) {
            self.raw("<tr>");
            for cell in row {
                match cell {
                    Cell::Text(text) => {
                        self.raw("<td>");
                        self.text(text);
                    }
                    Cell::Number(number) => {
                        self.raw("<td class=\"n\">");
                        self.number(*number);
                    }
                }
                self.raw("</td>");
            }
            self.raw("</tr>");
        }
        self.raw("</tbody></table></div>");
        if count > ROWS {
            self.raw("<p class=\"q\">and ");
            self.number((count - ROWS) as u64);
            self.raw(" more</p>");
        }
    }
}

fn sum(traps: &[TrapCount]) -> u64 {
    traps.iter().map(|trap| trap.count).sum()
}

fn describe(traps: &[TrapCount]) -> String {
    let parts: Vec<String> = traps
        .iter()
        .map(|trap| {
            let TrapCount {
                origin: _,
                trap,
                outcome,
                count,
            } = trap;
            format!("{count} {trap} {outcome}")
        })
        .collect();
    parts.join(", ")
}

fn detection(page: &mut Page, snapshot: &Snapshot) {
    let host = &snapshot.host;
    page.raw("<h2>Would this host notice?</h2><p>Detection is <strong>");
    page.text(host.detection_mode);
    page.raw("</strong> <span class=\"q\">(known from: ");
    page.text(host.detection_source);
    page.raw(")</span>. ");
    for (origin, what) in [("user", "a process"), ("guest", "a guest")] {
        page.raw("A lock of ");
        page.text(what);
        page.raw(match host.sees.get(origin) {
            Some(true) => " would be noticed. ",
            Some(false) => " would <strong>not</strong> be noticed. ",
            None => " may or may not be noticed. ",
        });
    }
    if host.mitigation == Some(false) {
        page.raw("The kernel does not slow offenders down (kernel.split_lock_mitigate is 0).");
    }
    page.raw("</p>");
}

fn host(page: &mut Page, snapshot: &Snapshot) {
    page.raw("<h2>Locks trapped on this host</h2>");
    let rows: Vec<_> = snapshot
        .host_traps
        .iter()
        .filter(|trap| trap.count > 0)
        .map(|trap| {
            vec![
                Cell::Text(trap.origin),
                Cell::Text(trap.trap),
                Cell::Text(trap.outcome),
                Cell::Number(trap.count),
            ]
        })
        .collect();
    page.table(
        &["origin", "trap", "outcome", "count"],
        &rows,
        "none since the agent started",
    );
    let overflow: u64 = ["process", "vm"]
        .iter()
        .filter_map(|kind| snapshot.overflow_traps.get(kind))
        .sum();
    if overflow > 0 {
        page.number(overflow);
        page.raw(" of them are of processes or VMs past the limits, which have no line below.");
    }
}

fn state(alive: bool) -> &'static str {
    if alive { "running" } else { "ended" }
}

fn vms(page: &mut Page, snapshot: &Snapshot) {
    page.raw("<h2>Virtual machines</h2>");
    let mut vms: Vec<_> = snapshot.vms.iter().collect();
    vms.sort_by_key(|vm| {
        let exits: u64 = vm.exits.values().chain(vm.userspace_exits.values()).sum();
        std::cmp::Reverse((sum(&vm.traps), vm.ac_injected, exits))
    });
    let traps: Vec<String> = vms.iter().map(|vm| describe(&vm.traps)).collect();
    let rows: Vec<_> = vms
        .iter()
        .zip(&traps)
        .map(|(vm, traps)| {
            vec![
                Cell::Text(&vm.vm),
                Cell::Text(&vm.id),
                Cell::Text(vm.vmm.name()),
                Cell::Text(state(vm.alive)),
                Cell::Text(traps),
                Cell::Number(vm.ac_injected),
                Cell::Number(vm.exits.values().sum()),
                Cell::Number(vm.userspace_exits.values().sum()),
            ]
        })
        .collect();
    page.table(
        &[
            "vm",
            "id",
            "VMM",
            "state",
            "locks",
            "#AC injected",
            "exits",
            "returns to the VMM",
        ],
        &rows,
        "none seen",
    );
}

fn processes(page: &mut Page, snapshot: &Snapshot) {
    page.raw("<h2>Processes</h2>");
    let mut processes: Vec<_> = snapshot.processes.iter().collect();
    processes
        .sort_by_key(|process| std::cmp::Reverse((sum(&process.traps), process.alignment_checks)));
    let traps: Vec<String> = processes
        .iter()
        .map(|process| describe(&process.traps))
        .collect();
    let rows: Vec<_> = processes
        .iter()
        .zip(&traps)
        .map(|(process, traps)| {
            vec![
                Cell::Text(&process.comm),
                Cell::Number(u64::from(process.subject.pid)),
                Cell::Text(process.owner.workload_unit()),
                Cell::Text(state(process.alive)),
                Cell::Text(traps),
                Cell::Number(process.alignment_checks),
            ]
        })
        .collect();
    page.table(
        &[
            "comm",
            "pid",
            "unit or container",
            "state",
            "locks",
            "alignment checks",
        ],
        &rows,
        "none with a trapped lock or an alignment check",
    );
}

fn recent(page: &mut Page, snapshot: &Snapshot) {
    page.raw("<h2>Newest events</h2>");
    let stories: &[Story] = &snapshot.recent;
    let ages: Vec<String> = stories
        .iter()
        .map(|story| format!("{:.1} s ago", (snapshot.taken_at - story.time).max(0.0)))
        .collect();
    let rows: Vec<_> = stories
        .iter()
        .zip(&ages)
        .map(|(story, age)| {
            vec![
                Cell::Text(age),
                Cell::Text(story.event),
                Cell::Text(&story.comm),
                Cell::Number(u64::from(story.pid)),
                Cell::Number(u64::from(story.tid)),
                Cell::Number(u64::from(story.cpu)),
                Cell::Text(story.ip.as_deref().unwrap_or("")),
            ]
        })
        .collect();
    page.table(
        &[
            "when",
            "event",
            "comm",
            "pid",
            "thread",
            "CPU",
            "instruction pointer",
        ],
        &rows,
        "none yet",
    );
}

fn probes(page: &mut Page, probes: &[ProbeRow]) {
    page.raw("<h2>Hooks</h2>");
    let refused: Vec<String> = probes
        .iter()
        .map(|probe| probe.refused.join("; "))
        .collect();
    let rows: Vec<_> = probes
        .iter()
        .zip(&refused)
        .map(|(probe, refused)| {
            vec![
                Cell::Text(probe.probe),
                Cell::Text(probe.via.unwrap_or("not attached")),
                Cell::Text(probe.counts),
                Cell::Text(refused),
            ]
        })
        .collect();
    page.table(&["hook", "attached by", "counts", "refused"], &rows, "none");
}

fn losses(page: &mut Page, snapshot: &Snapshot) {
    page.raw("<h2>Losses</h2>");
    let rows: Vec<_> = snapshot
        .lost
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(cause, count)| vec![Cell::Text(cause), Cell::Number(*count)])
        .collect();
    page.table(&["cause", "count"], &rows, "none");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_markup() {
        let mut page = Page(String::new());
        page.text("<script>\"a\" & 'b'");
        assert_eq!(page.0, "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
    }

    #[test]
    fn a_long_table_says_how_much_is_left_out() {
        let mut page = Page(String::new());
        let rows: Vec<_> = (0..60).map(|n| vec![Cell::Number(n)]).collect();
        page.table(&["n"], &rows, "none");
        assert!(page.0.contains("<td class=\"n\">49</td>"));
        assert!(!page.0.contains("<td class=\"n\">50</td>"));
        assert!(page.0.contains("and 10 more"));
        page.table(&["n"], &[], "nothing here");
        assert!(page.0.contains("nothing here"));
    }
}
