//! One subject in full.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use super::{
    answer::{Code, Detail, Named, Site},
    app::App,
    events,
    figures::{self, age, count, cut, rate, right, span, sparkline, wrap},
    history::Measure,
    picture::{Kind, Rates, Row},
    theme::Theme,
};

/// What labels take.
const INDENT: usize = 14;

/// As lines of so many columns.
pub fn lines(app: &App, row: &Row, columns: usize) -> Vec<Line<'static>> {
    let mut page = Page {
        lines: vec![],
        theme: app.theme,
        columns,
    };
    let detail = app
        .detail
        .as_ref()
        .filter(|(key, _)| *key == row.key())
        .map(|(_, detail)| detail.as_ref());
    page.identity(app, row);
    page.rates(app, row);
    page.sites(row, detail);
    page.exits(row);
    if let Some(Some(detail)) = detail {
        page.heading("Its newest events");
        let told = events::table(&detail.recent, detail.taken_at, app.theme, columns);
        page.lines.extend(told);
    } else {
        let stories: Vec<_> = app
            .picture()
            .events
            .iter()
            .filter(|story| story.pid == row.told.pid)
            .cloned()
            .collect();
        if !stories.is_empty() {
            page.heading("Its events among the newest");
            let now = app.picture().taken_at;
            page.lines
                .extend(events::table(&stories, now, app.theme, columns));
        }
    }
    page.lines
}

struct Page {
    lines: Vec<Line<'static>>,
    theme: Theme,
    columns: usize,
}

impl Page {
    fn heading(&mut self, text: &str) {
        self.lines.push(Line::raw(""));
        self.lines
            .push(Line::styled(text.to_owned(), self.theme.label()));
    }

    /// A label and a text behind it, in as many lines as it takes; nothing for no text.
    fn fact(&mut self, label: &str, text: &str) {
        self.styled_fact(label, text, Style::new());
    }

    fn styled_fact(&mut self, label: &str, text: &str, style: Style) {
        if text.is_empty() {
            return;
        }
        let parts = wrap(text, self.columns.saturating_sub(INDENT));
        for (index, part) in parts.into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.lines.push(Line::from(vec![
                Span::styled(format!("{label:<INDENT$}"), self.theme.quiet()),
                Span::styled(part, style),
            ]));
        }
    }

    fn identity(&mut self, app: &App, row: &Row) {
        let told = &row.told;
        let now = app.picture().taken_at;
        let what = match row.kind {
            Kind::Vm => "VM",
            Kind::Process => "Process",
        };
        let state = if !app.is_present(row) {
            "no longer in the snapshot: this is the last that was known"
        } else if told.alive {
            "runs"
        } else {
            "has ended"
        };
        let name = cut(row.name(), self.columns / 2);
        self.lines.push(Line::from(vec![
            Span::styled(format!("{what} {name}"), self.theme.strong()),
            Span::raw(format!("  {state}")),
        ]));
        if row.kind == Kind::Vm {
            self.fact("id", &told.id);
            let vcpus = match told.vcpus {
                0 => "no vCPU has run yet".to_owned(),
                1 => "1 vCPU".to_owned(),
                several => format!("{several} vCPUs"),
            };
            self.fact("VMM", &format!("{}, {vcpus}", told.vmm));
        }
        self.fact(
            "pid",
            &format!("{}, started {} ago", told.pid, age(now - told.started_at)),
        );
        self.fact("exe", &told.exe);
        self.fact("unit", &told.unit);
        self.fact("container", &told.container_id);
        self.fact("pod", &told.pod_uid);
        self.fact("cgroup", &told.cgroup);
        // As long as they like, and the rest matters more.
        let arguments = cut(&told.command_line, 2 * self.columns.saturating_sub(INDENT));
        self.fact("arguments", &arguments);
    }

    fn rates(&mut self, app: &App, row: &Row) {
        self.heading("Per second, and since the agent started");
        let rates = row.rates.as_ref();
        let last = super::columns::last_trap(row, app.picture().taken_at);
        let checks = match row.kind {
            Kind::Vm => "#AC injected",
            Kind::Process => "align checks",
        };
        let tally = row.tally;
        let (exits, exit_rate, exit_label) = if app.picture().counts_exits {
            (tally.exits, rates.map(|rates| rates.exits), "exits")
        } else {
            (tally.returns, rates.map(|rates| rates.returns), "returns")
        };
        let of_rates = |rate: fn(&Rates) -> f64| rates.map(rate);
        self.figure(
            app,
            row,
            "locks",
            tally.locks(),
            of_rates(Rates::locks),
            Some(Measure::Locks),
        );
        if tally.bus > 0 && tally.split > 0 {
            self.figure(
                app,
                row,
                " split",
                tally.split,
                of_rates(|rates| rates.split),
                None,
            );
            self.figure(
                app,
                row,
                " bus",
                tally.bus,
                of_rates(|rates| rates.bus),
                None,
            );
        }
        self.figure(
            app,
            row,
            checks,
            tally.checks,
            of_rates(|rates| rates.checks),
            Some(Measure::Checks),
        );
        if row.kind == Kind::Vm {
            self.figure(app, row, exit_label, exits, exit_rate, Some(Measure::Exits));
        }
        let delay = span(tally.delay_ns as f64 / 1e9);
        let delay_rate = rates.map_or_else(|| "-".to_owned(), |rates| span(rates.delay));
        if tally.delay_ns > 0 {
            self.lines.push(Line::from(vec![
                Span::styled(format!("{:<INDENT$}", "held up"), self.theme.quiet()),
                Span::raw(format!("{} {}", right(&delay_rate, 8), right(&delay, 10))),
            ]));
        }
        let kinds: Vec<String> = row
            .told
            .traps
            .iter()
            .filter(|traps| traps.count > 0)
            .map(|traps| {
                format!(
                    "{} {} {} {}",
                    traps.count, traps.origin, traps.trap, traps.outcome
                )
            })
            .collect();
        self.fact("of them", &kinds.join(", "));
        if let Some(last) = last {
            self.fact("last lock", &format!("{last} ago"));
        }
    }

    /// A rate, a count, and what the rate was.
    fn figure(
        &mut self,
        app: &App,
        row: &Row,
        label: &str,
        all: u64,
        per_second: Option<f64>,
        measure: Option<Measure>,
    ) {
        let start = format!(
            "{} {}  ",
            right(&rate(per_second), 8),
            right(&count(all), 10)
        );
        let room = self.columns.saturating_sub(INDENT + start.len());
        let past = measure.map_or_else(Vec::new, |measure| {
            app.history().of(row.kind, row.key(), measure, room)
        });
        let style = if per_second.unwrap_or(0.0) > 0.0 {
            self.theme.active()
        } else {
            Style::new()
        };
        self.lines.push(Line::from(vec![
            Span::styled(format!("{label:<INDENT$}"), self.theme.quiet()),
            Span::styled(start, style),
            Span::styled(sparkline(past.into_iter()), self.theme.active()),
        ]));
    }

    /// Where it traps. `detail` is `None` until the agent has answered, and `Some(None)` where it has
    /// no more than the snapshot.
    fn sites(&mut self, row: &Row, detail: Option<Option<&Detail>>) {
        let (sites, others) = match detail {
            Some(Some(detail)) => (&detail.sites, detail.other_records),
            _ => (&row.told.sites, 0),
        };
        self.heading("Where it traps, by its records");
        if sites.is_empty() {
            let text = match detail {
                None => "no address yet",
                Some(Some(_)) => "no record has an address",
                Some(None) => "no address: there is no more than what the snapshot has",
            };
            self.lines.push(Line::styled(text, self.theme.quiet()));
        }
        for site in sites {
            self.site(site);
        }
        if others > 0 {
            let text = format!("{} records of further addresses", count(others));
            self.lines.push(Line::styled(text, self.theme.quiet()));
        }
    }

    fn site(&mut self, site: &Site) {
        let Site {
            event,
            ip,
            records,
            last: _,
            code,
        } = site;
        let no_code = Code::default();
        let code = code.as_ref().unwrap_or(&no_code);
        let function = code.function.as_ref().map(|function| {
            let offset = code.function_offset.as_deref().unwrap_or("");
            let plus = if offset.is_empty() { "" } else { "+" };
            format!("{function}{plus}{offset}")
        });
        let start = format!("{}x ", right(&count(*records), 6));
        let what = function.unwrap_or_else(|| ip.to_string());
        let room = self.columns.saturating_sub(start.len());
        self.lines.push(Line::from(vec![
            Span::raw(start),
            Span::styled(cut(&what, room), self.theme.strong()),
            Span::raw(cut(
                &format!("  {event}"),
                room.saturating_sub(figures::width(&what)),
            )),
        ]));
        if code.function.is_some() {
            self.site_fact("address", ip);
        }
        self.site_fact("source", code.source.as_deref().unwrap_or(""));
        let place = match (&code.file, &code.offset) {
            (Some(file), Some(offset)) => format!("{file}+{offset}"),
            (Some(file), None) => file.to_string(),
            (None, _) => String::new(),
        };
        self.site_fact("file", &place);
        let instruction = code.instruction.as_ref().or(code.bytes.as_ref());
        self.site_fact("instruction", instruction.map_or("", |text| text));
        if let Some(operand) = &code.operand {
            let crosses = if operand.crosses_line {
                "crosses a cache line"
            } else {
                "within a cache line"
            };
            let text = format!(
                "{}: {} bytes from byte {} of 64, {crosses}",
                operand.address, operand.size, operand.modulo_64
            );
            self.site_fact("operand", &text);
        }
        self.site_fact("not known", code.missing.as_deref().unwrap_or(""));
    }

    fn site_fact(&mut self, label: &str, text: &str) {
        if !text.is_empty() {
            self.fact(&format!("  {label}"), text);
        }
    }

    fn exits(&mut self, row: &Row) {
        let rates = row.rates.as_ref();
        self.reasons(
            "VM exits by reason",
            &row.told.exits,
            rates.map(|rates| &rates.by_reason),
        );
        self.reasons(
            "Returns to the VMM by reason",
            &row.told.userspace_exits,
            rates.map(|rates| &rates.returns_by_reason),
        );
    }

    fn reasons(&mut self, heading: &str, counts: &Named, rates: Option<&Vec<f64>>) {
        let mut rows: Vec<(Option<f64>, u64, &str)> = counts
            .iter()
            .enumerate()
            .map(|(index, (reason, count))| {
                let rate = rates.and_then(|rates| rates.get(index)).copied();
                (rate, *count, &**reason)
            })
            .filter(|(_, count, _)| *count > 0)
            .collect();
        if rows.is_empty() {
            return;
        }
        rows.sort_by(|one, other| {
            let rate = |rate: Option<f64>| rate.unwrap_or(0.0);
            rate(other.0)
                .total_cmp(&rate(one.0))
                .then(other.1.cmp(&one.1))
        });
        self.heading(heading);
        for (per_second, all, reason) in rows {
            let text = format!(
                "{} {}  {reason}",
                right(&rate(per_second), 8),
                right(&count(all), 10)
            );
            self.lines.push(Line::raw(cut(&text, self.columns)));
        }
    }
}
