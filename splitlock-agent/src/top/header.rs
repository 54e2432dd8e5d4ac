//! What is above the tables: how it stands with this host, in words.

use ratatui::text::{Line, Span};

use super::{
    app::{App, Link},
    figures::{age, count, cut, rate, sparkline, width, wrap},
    picture::Picture,
    theme::Theme,
};

/// A piece of a line, and whether it says that something is wrong.
type Piece = (String, Mood);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Plain,
    Good,
    Active,
    Bad,
}

/// The first line: who is watched, and whether there is news of it.
pub fn title(app: &App, columns: usize) -> Line<'static> {
    let theme = app.theme;
    let picture = app.picture();
    let (state, style) = match &app.link {
        Link::Down { .. } => ("NO ANSWER".to_owned(), theme.bad()),
        Link::Up if app.is_paused() => ("PAUSED".to_owned(), theme.strong()),
        Link::Up if app.pace > app.interval => (
            format!("every {:.1}s, as looks take long", app.pace.as_secs_f64()),
            theme.active(),
        ),
        Link::Up => (format!("every {:?}", app.interval), theme.quiet()),
    };
    let kernel = &picture.host.kernel;
    let name = "splitlock-agent top";
    let what = format!("  {} · Linux {kernel}", app.source);
    let room = columns.saturating_sub(width(name) + width(&state) + 1);
    let what = cut(&what, room);
    let gap = room - width(&what) + 1;
    Line::from(vec![
        Span::styled(name, theme.strong()),
        Span::raw(what),
        Span::raw(" ".repeat(gap)),
        Span::styled(state, style),
    ])
}

/// What is wrong with the connection, or was a moment ago.
pub fn notice(app: &App, columns: usize) -> Option<Line<'static>> {
    let text = match &app.link {
        Link::Down { since, why } => format!(
            "No answer for {}; this is the last picture, and top goes on trying. {why}",
            age(since.elapsed().as_secs_f64())
        ),
        Link::Up if app.has_restarted() => {
            "The agent has started anew: counts begin at 0, and rates with the next look."
                .to_owned()
        }
        Link::Up => return None,
    };
    Some(Line::styled(cut(&text, columns), app.theme.bad()))
}

/// The words, in lines.
pub fn words(picture: &Picture, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    [
        Some(detection(picture)),
        Some(locks(picture)),
        Some(hooks(picture)),
        lost(picture),
        overflow(picture),
    ]
    .into_iter()
    .flatten()
    .flat_map(|(label, pieces)| wrapped(label, &pieces, theme, columns))
    .collect()
}

/// The one line of it for a small screen.
pub fn brief(picture: &Picture, theme: Theme, columns: usize) -> Line<'static> {
    let (sum, all) = sums(picture);
    let text = format!(
        "Detection {} · locks {}/s, {} in all",
        picture.host.detection_mode,
        rate(sum),
        count(all)
    );
    let style = if sum.unwrap_or(0.0) > 0.0 {
        theme.active()
    } else {
        theme.quiet()
    };
    Line::styled(cut(&text, columns), style)
}

/// The host's locks of the last looks, if there were any.
pub fn past(app: &App, columns: usize) -> Option<Line<'static>> {
    let label = "Past       ";
    let samples = app.history().host(columns.saturating_sub(label.len()));
    if samples.iter().all(|sample| *sample == 0.0) {
        return None;
    }
    let top = samples.iter().copied().fold(0.0, f32::max);
    let text = format!(" at most {}/s", rate(Some(top.into())));
    let room = columns.saturating_sub(label.len() + text.len());
    let skipped = samples.len().saturating_sub(room);
    Some(Line::from(vec![
        Span::styled(label, app.theme.label()),
        Span::styled(
            sparkline(samples.into_iter().skip(skipped)),
            app.theme.active(),
        ),
        Span::styled(text, app.theme.quiet()),
    ]))
}

fn detection(picture: &Picture) -> (&'static str, Vec<Piece>) {
    let host = &picture.host;
    let (mode, mood) = match (&*host.detection_mode, host.mitigation) {
        ("warn", Some(false)) => (
            "warn, and offenders are not slowed down (kernel.split_lock_mitigate=0)",
            Mood::Active,
        ),
        ("warn", _) => ("warn: offenders go on", Mood::Good),
        ("fatal", _) => ("fatal: offenders get SIGBUS", Mood::Good),
        ("ratelimit", _) => ("ratelimit: bus locks are throttled", Mood::Good),
        ("off", _) => ("off by split_lock_detect=", Mood::Bad),
        ("unsupported", _) => ("none: this CPU cannot trap them", Mood::Bad),
        (mode, _) => (mode, Mood::Bad),
    };
    let sees = |origin: &str| {
        host.sees
            .iter()
            .find_map(|(known, sees)| (&**known == origin).then_some(*sees))
    };
    let said = |what: &str, sees: Option<bool>| match sees {
        Some(true) => (format!("{what}: seen"), Mood::Good),
        Some(false) => (format!("{what}: NOT SEEN"), Mood::Bad),
        None => (format!("{what}: perhaps seen"), Mood::Active),
    };
    let source = host.detection_source.replace('_', " ");
    let mut pieces = vec![(format!("{mode} ({source});"), mood)];
    let (user, guest) = (sees("user"), sees("guest"));
    if user == guest {
        pieces.push(said("locks of processes and guests", user));
    } else {
        let (text, mood) = said("locks of processes", user);
        pieces.push((text + ",", mood));
        pieces.push(said("of guests", guest));
    }
    ("Detection", pieces)
}

/// Locks per second, and in all.
fn sums(picture: &Picture) -> (Option<f64>, u64) {
    let rates = picture.totals.iter().map(|total| total.rate);
    let all = picture.totals.iter().map(|total| total.traps.count);
    (rates.sum::<Option<f64>>(), all.fold(0, u64::saturating_add))
}

fn locks(picture: &Picture) -> (&'static str, Vec<Piece>) {
    let (sum, all) = sums(picture);
    if all == 0 {
        return (
            "Locks",
            vec![(
                "none trapped since the agent started".to_owned(),
                Mood::Plain,
            )],
        );
    }
    let mood = |rate: Option<f64>| match rate {
        Some(rate) if rate > 0.0 => Mood::Active,
        _ => Mood::Plain,
    };
    let mut pieces = vec![(
        format!("{}/s, {} in all:", rate(sum), count(all)),
        mood(sum),
    )];
    for total in picture.totals.iter().filter(|total| total.traps.count > 0) {
        let trap = total.traps.trap.trim_end_matches("_lock");
        let text = format!(
            "{} {trap} {} {}/s ({})",
            total.traps.origin,
            total.traps.outcome,
            rate(total.rate),
            count(total.traps.count)
        );
        pieces.push((text, mood(total.rate)));
    }
    ("Locks", pieces)
}

fn hooks(picture: &Picture) -> (&'static str, Vec<Piece>) {
    let missing: Vec<&str> = picture
        .probes
        .iter()
        .filter(|probe| probe.via.is_none())
        .map(|probe| &*probe.probe)
        .collect();
    let all = picture.probes.len();
    let attached = all - missing.len();
    if missing.is_empty() {
        return ("Hooks", vec![(format!("all {all} attached"), Mood::Good)]);
    }
    let last = missing.len() - 1;
    let mut pieces = vec![(format!("{attached} of {all} attached; not:"), Mood::Plain)];
    pieces.extend(missing.iter().enumerate().map(|(index, name)| {
        let comma = if index == last { "" } else { "," };
        (format!("{name}{comma}"), Mood::Active)
    }));
    ("Hooks", pieces)
}

fn lost(picture: &Picture) -> Option<(&'static str, Vec<Piece>)> {
    let mut lost: Vec<_> = picture.lost.iter().filter(|lost| lost.count > 0).collect();
    // What goes on comes first.
    lost.sort_by(|one, other| {
        let rate = |rate: Option<f64>| rate.unwrap_or(0.0);
        rate(other.rate).total_cmp(&rate(one.rate))
    });
    let last = lost.len().checked_sub(1)?;
    let pieces = lost
        .iter()
        .enumerate()
        .map(|(index, lost)| {
            let comma = if index == last { "" } else { "," };
            let per_second = match lost.rate {
                Some(value) if value > 0.0 => format!(" {}/s", rate(Some(value))),
                _ => String::new(),
            };
            let text = format!("{}{per_second} ({}){comma}", lost.cause, count(lost.count));
            // Records beyond the limit are left out on purpose: no count depends on them.
            let is_wanted = &*lost.cause == "record_rate_limit";
            let mood = if per_second.is_empty() || is_wanted {
                Mood::Plain
            } else {
                Mood::Bad
            };
            (text, mood)
        })
        .collect();
    Some(("Lost", pieces))
}

fn overflow(picture: &Picture) -> Option<(&'static str, Vec<Piece>)> {
    let all: u64 = picture
        .overflow
        .iter()
        .filter(|(kind, _)| matches!(&***kind, "process" | "vm"))
        .fold(0, |sum, (_, count)| sum.saturating_add(*count));
    let text = format!(
        "{} locks are of subjects past a limit, without a row here",
        count(all)
    );
    (all > 0).then(|| ("Limits", vec![(text, Mood::Active)]))
}

/// Puts pieces behind a label, in as many lines as that takes.
fn wrapped(label: &str, pieces: &[Piece], theme: Theme, columns: usize) -> Vec<Line<'static>> {
    const INDENT: usize = 11;
    let room = columns.saturating_sub(INDENT).max(10);
    let style = |mood| match mood {
        Mood::Plain => ratatui::style::Style::new(),
        Mood::Good => theme.good(),
        Mood::Active => theme.active(),
        Mood::Bad => theme.bad(),
    };
    let mut lines: Vec<Vec<Span<'static>>> = vec![];
    let mut line: Vec<Span<'static>> = vec![];
    let mut used = 0;
    for (text, mood) in pieces {
        let parts = if width(text) <= room {
            vec![text.clone()]
        } else {
            wrap(text, room)
        };
        for part in parts {
            let gap = usize::from(used > 0);
            if used > 0 && used + gap + width(&part) > room {
                lines.push(std::mem::take(&mut line));
                used = 0;
            } else if gap == 1 {
                line.push(Span::raw(" "));
                used += 1;
            }
            used += width(&part);
            line.push(Span::styled(part, style(*mood)));
        }
    }
    lines.push(line);
    lines
        .into_iter()
        .enumerate()
        .map(|(index, spans)| {
            let start = if index == 0 { label } else { "" };
            let mut all = vec![Span::styled(format!("{start:<INDENT$}"), theme.label())];
            all.extend(spans);
            Line::from(all)
        })
        .collect()
}
