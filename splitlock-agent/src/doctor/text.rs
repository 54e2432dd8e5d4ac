//! The report for a person: 80 columns, the verdict first.

use std::fmt::Write as _;

use super::{
    Report,
    facts::{AgentState, Facts, HookRow, HowKnown, TracefsState},
    findings::{Finding, Severity},
    verdict::Answer,
};
use crate::subjects::names::printable;

const WIDTH: usize = 80;
/// Where the text of a finding begins.
const INDENT: usize = 10;
/// Where a fact's value begins.
const VALUES: usize = 24;

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// The whole report.
pub fn render(report: &Report, is_coloured: bool) -> String {
    let mut page = Page {
        text: String::new(),
        is_coloured,
    };
    page.verdict(report);
    for finding in &report.findings {
        page.finding(finding);
    }
    page.facts(&report.facts);
    page.hooks(&report.facts);
    page.text
}

struct Page {
    text: String,
    is_coloured: bool,
}

impl Page {
    fn paint(&self, colour: &str, text: &str) -> String {
        if self.is_coloured {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Lines of one paragraph, all but the first indented. What the kernel or another machine said
    /// may be in it, so that its control characters are escaped.
    fn paragraph(&mut self, indent: usize, used: usize, text: &str) {
        let mut column = used;
        let text = printable(text.as_bytes());
        for (index, word) in text.split(' ').enumerate() {
            let width = word.chars().count();
            if index > 0 {
                if column + 1 + width > WIDTH {
                    let _ = write!(self.text, "\n{:indent$}", "");
                    column = indent;
                } else {
                    self.text.push(' ');
                    column += 1;
                }
            }
            self.text.push_str(word);
            column += width;
        }
        self.text.push('\n');
    }

    fn verdict(&mut self, report: &Report) {
        let colour = match report.verdict.answer {
            Answer::Yes => GREEN,
            Answer::Degraded | Answer::Partly | Answer::Unknown => YELLOW,
            Answer::No => RED,
        };
        // The first line stands alone, and whole.
        let sentence = self.paint(colour, &report.verdict.sentence);
        self.text.push_str(&sentence);
        self.text.push('\n');
    }

    fn finding(&mut self, finding: &Finding) {
        let Finding {
            id: _,
            severity,
            what,
            costs,
            command,
            advice,
        } = finding;
        let colour = match severity {
            Severity::Critical => RED,
            Severity::Warning => YELLOW,
            Severity::Note => CYAN,
        };
        let name = format!("{:INDENT$}", severity.name());
        let name = self.paint(colour, &name);
        let _ = write!(self.text, "\n{name}");
        self.paragraph(INDENT, INDENT, what);
        let _ = write!(self.text, "{:INDENT$}", "");
        self.paragraph(INDENT, INDENT, &format!("costs: {costs}"));
        if let Some(advice) = advice {
            let _ = write!(self.text, "{:INDENT$}", "");
            self.paragraph(INDENT, INDENT, &format!("mend: {advice}"));
        }
        if let Some(command) = command {
            // Never wrapped: it is copied.
            let command = self.paint(BOLD, &printable(command.as_bytes()));
            let _ = writeln!(self.text, "{:INDENT$}# {command}", "");
        }
    }

    fn heading(&mut self, text: &str) {
        let text = self.paint(BOLD, text);
        let _ = writeln!(self.text, "\n{text}");
    }

    fn row(&mut self, name: &str, value: &str) {
        let width = VALUES - 2;
        let _ = write!(self.text, "  {name:width$}");
        self.paragraph(VALUES, VALUES, value);
    }

    fn facts(&mut self, facts: &Facts) {
        let cpu = &facts.cpu;
        self.heading("Host");
        let model = if cpu.model.is_empty() {
            "unknown"
        } else {
            &cpu.model
        };
        let where_ = if cpu.is_virtual { ", in a VM" } else { "" };
        self.row("CPU", &format!("{model}{where_}"));
        self.row("split_lock_detect", yes_or_no(cpu.split_lock_detect));
        self.row("bus_lock_detect", yes_or_no(cpu.bus_lock_detect));
        let kernel = &facts.kernel;
        let preemptible = if kernel.preemptible {
            ", preemptible"
        } else {
            ""
        };
        self.row("kernel", &format!("{}{preemptible}", kernel.release));
        let parameter = match &kernel.parameter {
            Some(value) => format!("split_lock_detect={value}"),
            None => "no split_lock_detect=".to_owned(),
        };
        self.row("boot parameter", &parameter);
        let detection = &facts.detection;
        self.row(
            "mode of detection",
            &format!(
                "{} (from {})",
                detection.mode.name(),
                detection.source.name()
            ),
        );
        self.row(
            "split_lock_mitigate",
            match detection.mitigation {
                Some(true) => "1",
                Some(false) => "0",
                None => "this kernel has no such sysctl",
            },
        );
        self.row("notices a process", yes_or_no(detection.sees_user));
        self.row("notices a guest", yes_or_no(detection.sees_guest));
        self.row("KVM", &kvm(facts));
        self.row(
            "tracefs",
            match &facts.tracefs {
                TracefsState::Mounted(path) => path,
                TracefsState::Private => "mounted for the agent alone",
                TracefsState::Closed => "mounted, root's alone",
                TracefsState::Missing(reason) => reason,
            },
        );
        self.row("BTF", facts.btf.reason.as_deref().unwrap_or("yes"));
        self.row(
            "kernel log",
            facts.kernel_log.reason.as_deref().unwrap_or("readable"),
        );
        let lockdown = kernel.lockdown.as_deref().unwrap_or("the kernel has none");
        self.row("lockdown", lockdown);
        let unprivileged = match kernel.unprivileged_bpf_disabled {
            Some(0) => "allowed",
            Some(_) => "not allowed",
            None => "unknown",
        };
        self.row("unprivileged BPF", unprivileged);
        let rights = match &facts.rights.missing {
            Some(missing) => missing.split(';').next().unwrap_or(missing),
            None if facts.rights.lacking.is_empty() => "all that the agent uses",
            None => "enough to attach, not all that the agent uses",
        };
        self.row("rights", rights);
        self.row("descriptors", &limit(facts.limits.descriptors));
        self.row("running agent", &agent(facts));
    }

    fn hooks(&mut self, facts: &Facts) {
        self.heading(match facts.hooks.known {
            HowKnown::Attached => "Hooks, as they were attached for a moment",
            HowKnown::Agent => "Hooks, as the running agent has them",
            HowKnown::Planned => "Hooks, as an agent would try them (nothing was attached)",
        });
        let mut above: Option<&HookRow> = None;
        for row in &facts.hooks.rows {
            self.hook(facts.hooks.known, row, above);
            above = Some(row);
        }
    }

    fn hook(&mut self, known: HowKnown, row: &HookRow, above: Option<&HookRow>) {
        let how = match &row.via {
            Some(via) => format!("{via:15} {}", count_in_words(&row.counts)),
            None if row.planned.is_empty() && known == HowKnown::Planned => {
                "nothing that could be tried".to_owned()
            }
            None if row.planned.is_empty() => "not attached".to_owned(),
            None => format!("to be tried: {}", row.planned.join(", ")),
        };
        let width = VALUES;
        let _ = write!(self.text, "  {:width$} ", printable(row.probe.as_bytes()));
        self.paragraph(VALUES + 3, VALUES + 3, &how);
        // The functions share theirs, as a rule.
        if row.refused.len() > 1 && above.is_some_and(|above| above.refused == row.refused) {
            self.text.push_str("      refused as the one above\n");
            return;
        }
        for refused in &row.refused {
            self.text.push_str("      not by ");
            self.paragraph(8, 13, refused);
        }
    }
}

/// What `counts` means.
fn count_in_words(counts: &str) -> &str {
    match counts {
        "every_trap" => "counts every one",
        "lower_bound" => "counts a lower bound",
        "first_per_thread" => "counts a thread's first",
        "none" => "details, no counts",
        other => other,
    }
}

fn yes_or_no(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    }
}

fn limit(value: Option<u64>) -> String {
    value.map_or_else(|| "no limit".to_owned(), |value| value.to_string())
}

fn kvm(facts: &Facts) -> String {
    let kvm = &facts.kvm;
    if kvm.modules.is_empty() {
        return "not loaded".to_owned();
    }
    let mut words = vec![kvm.modules.join(", ")];
    if !kvm.device {
        words.push("no /dev/kvm here".to_owned());
    }
    words.push(match kvm.bus_lock_exits {
        Some(true) => "offers exits on bus locks".to_owned(),
        Some(false) => "offers no exits on bus locks".to_owned(),
        None => "could not be asked".to_owned(),
    });
    words.join("; ")
}

fn agent(facts: &Facts) -> String {
    let agent = &facts.agent;
    match (&agent.state, &agent.view) {
        (AgentState::Absent(_), _) => format!("none at {}", agent.url),
        (AgentState::Unhealthy(_), _) => format!("at {}, not healthy", agent.url),
        (AgentState::Healthy, Some(view)) => {
            let attached = view.hooks.iter().filter(|hook| hook.via.is_some()).count();
            format!(
                "at {}, {attached} of {} hooks attached",
                agent.url,
                view.hooks.len()
            )
        }
        (AgentState::Healthy, None) => format!("at {}, tells nothing of its hooks", agent.url),
    }
}
