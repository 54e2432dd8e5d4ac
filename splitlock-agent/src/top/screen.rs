//! The screen.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    app::{App, Page},
    columns, detail, events,
    figures::cut,
    header, help,
    picture::Kind,
};

/// The smallest screen.
pub const SMALLEST: (u16, u16) = (40, 10);

/// From this height on the header is in full.
const FULL_HEADER: u16 = 16;

/// From this height on both tables are there.
const BOTH_TABLES: u16 = 32;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let (width, height) = SMALLEST;
    if area.width < width || area.height < height {
        let text = format!(
            "Too small: {}x{}.\ntop needs {width}x{height}.\nq quits.",
            area.width, area.height
        );
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let columns = usize::from(area.width);
    let mut top = vec![header::title(app, columns)];
    top.extend(header::notice(app, columns));
    let is_tables = matches!(app.page, Page::Tables);
    if area.height < FULL_HEADER || !is_tables || app.help {
        top.push(header::brief(app.picture(), app.theme, columns));
    } else {
        // At least half of the screen is the tables'.
        let most = usize::from(area.height / 2) - top.len();
        let words = header::words(app.picture(), app.theme, columns);
        top.extend(words.into_iter().take(most));
        if area.height >= BOTH_TABLES {
            top.extend(header::past(app, columns));
        }
    }
    let [upper, middle, lower] = Layout::vertical([
        Constraint::Length(top.len() as u16),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(top), upper);
    frame.render_widget(bottom(app, columns), lower);
    if app.help {
        frame.render_widget(Paragraph::new(help::lines(app.theme, columns)), middle);
        return;
    }
    match &app.page {
        Page::Tables if area.height >= BOTH_TABLES => {
            let [vms, processes] = Layout::vertical(shares(app, middle.height)).areas(middle);
            table(frame, app, Kind::Vm, vms, true);
            table(frame, app, Kind::Process, processes, true);
        }
        Page::Tables => table(frame, app, app.focus, middle, false),
        Page::Events => {
            let lines = events::lines(app.picture(), app.theme, columns);
            text(frame, app, middle, lines);
        }
        Page::Subject(row) => {
            let lines = detail::lines(app, row, columns);
            text(frame, app, middle, lines);
        }
    }
}

/// What a table does not need is the other's.
fn shares(app: &App, height: u16) -> [Constraint; 2] {
    let needs = Kind::ALL.map(|kind| app.tables[kind.index()].order.len().max(1) + 3);
    let half = usize::from(height / 2);
    let vms = if needs[0] <= half {
        needs[0]
    } else {
        half.max(usize::from(height).saturating_sub(needs[1]))
            .min(needs[0])
    };
    [Constraint::Length(vms as u16), Constraint::Min(1)]
}

/// One table, under the names of both where it is alone.
fn table(frame: &mut Frame<'_>, app: &mut App, kind: Kind, area: Rect, both: bool) {
    let theme = app.theme;
    let width = usize::from(area.width);
    let [names, head, body] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(area);
    frame.render_widget(tabs(app, kind, both), names);

    let height = usize::from(body.height);
    app.tables[kind.index()].scroll(height);
    let heads = app.heads();
    let table = &app.tables[kind.index()];
    // The mark of the cursor, and its gap.
    let columns = columns::fitting(kind, width - 2, table.sort, &[], heads);
    let line = columns::head(kind, &columns, table.sort, heads);
    frame.render_widget(Line::styled(format!("  {line}"), theme.head()), head);

    let picture = app.picture();
    let rows = picture.rows(kind);
    if table.order.is_empty() {
        let text = match (rows.is_empty(), kind) {
            (false, _) => format!("  None of {} has: {}", rows.len(), app.filter),
            (true, Kind::Vm) => "  No VM has run since the agent started.".to_owned(),
            (true, Kind::Process) => {
                "  No process has had a lock trapped, or an alignment check.".to_owned()
            }
        };
        frame.render_widget(Line::styled(cut(&text, width), theme.quiet()), body);
        return;
    }
    let lines: Vec<Line<'_>> = table
        .order
        .iter()
        .enumerate()
        .skip(table.first)
        .take(height)
        .map(|(place, index)| {
            let row = &rows[*index];
            let is_cursor = place == table.place && kind == app.focus;
            let text = columns::row(row, &columns, heads);
            let rates = row.rates.as_ref();
            let style = if is_cursor {
                theme.cursor()
            } else if !row.told.alive {
                theme.quiet()
            } else if rates.is_some_and(|rates| rates.locks() > 0.0) {
                theme.active()
            } else {
                Style::new()
            };
            let mark = if is_cursor { "> " } else { "  " };
            Line::styled(format!("{mark}{text}"), style)
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), body);
}

fn tabs(app: &App, kind: Kind, both: bool) -> Line<'static> {
    let theme = app.theme;
    let name = |kind: Kind| {
        let shown = app.tables[kind.index()].order.len();
        let all = app.picture().rows(kind).len();
        let what = match kind {
            Kind::Vm => "VMs",
            Kind::Process => "Processes",
        };
        let number = if shown == all {
            all.to_string()
        } else {
            format!("{shown} of {all}")
        };
        if kind == app.focus {
            Span::styled(format!("[{what} {number}]"), theme.strong())
        } else {
            Span::styled(format!(" {what} {number} "), theme.quiet())
        }
    };
    let mut spans = vec![];
    if both {
        spans.push(name(kind));
    } else {
        spans.extend([name(Kind::Vm), Span::raw(" "), name(Kind::Process)]);
    }
    if !app.filter.is_empty() && app.editing.is_none() {
        spans.push(Span::styled(
            format!("  filter: {} (Esc: none)", app.filter),
            theme.active(),
        ));
    }
    Line::from(spans)
}

/// A page of text that can be scrolled.
fn text(frame: &mut Frame<'_>, app: &mut App, area: Rect, lines: Vec<Line<'static>>) {
    let height = usize::from(area.height);
    let most = lines.len().saturating_sub(height);
    app.scrollable = (most, height);
    app.scroll = app.scroll.min(most);
    let shown: Vec<Line<'_>> = lines.into_iter().skip(app.scroll).take(height).collect();
    frame.render_widget(Paragraph::new(shown), area);
}

/// Keys, or the filter that is typed.
fn bottom(app: &App, columns: usize) -> Line<'static> {
    let theme = app.theme;
    if app.editing.is_some() {
        let keys = "  Enter keeps it, Esc takes it back";
        // What is typed is at the end.
        let room = columns.saturating_sub(keys.len() + 2);
        let skipped = app.filter.chars().count().saturating_sub(room);
        let typed: String = app.filter.chars().skip(skipped).collect();
        return Line::from(vec![
            Span::styled("/", theme.strong()),
            Span::raw(typed),
            Span::styled("_", theme.strong()),
            Span::styled(keys, theme.quiet()),
        ]);
    }
    let keys: &[(&str, &str)] = match (&app.page, app.help) {
        (_, true) => &[("Esc", "back"), ("q", "quit")],
        (Page::Tables, _) => &[
            ("q", "quit"),
            ("?", "help"),
            ("Enter", "open"),
            ("Tab", "switch"),
            ("/", "filter"),
            ("<>", "sort"),
            ("Space", "pause"),
            ("e", "events"),
        ],
        (Page::Events | Page::Subject(_), _) => &[
            ("Esc", "back"),
            ("↑↓", "scroll"),
            ("Space", "pause"),
            ("?", "help"),
            ("q", "quit"),
        ],
    };
    let mut spans = vec![];
    let mut used = 0;
    for (key, what) in keys {
        let gap = if used == 0 { "" } else { "  " };
        let long = gap.len() + key.chars().count() + 1 + what.len();
        if used + long > columns {
            break;
        }
        used += long;
        spans.push(Span::raw(gap));
        spans.push(Span::styled((*key).to_owned(), theme.strong()));
        spans.push(Span::styled(format!(" {what}"), theme.quiet()));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests;
