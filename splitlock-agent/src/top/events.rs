//! The newest events.

use ratatui::text::Line;

use super::{
    answer::Story,
    figures::{age, cut, left, right},
    picture::Picture,
    theme::Theme,
};

/// A head and a line for each.
pub fn lines(picture: &Picture, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    table(&picture.events, picture.taken_at, theme, columns)
}

/// The same of some stories, told at a time.
pub fn table(stories: &[Story], now: f64, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    if stories.is_empty() {
        return vec![Line::styled(
            "No event since the agent started.",
            theme.quiet(),
        )];
    }
    let is_narrow = columns < 96;
    // When, what, who, pid, thread, CPU and vCPU, where.
    let line = |[when, what, who, pid, tid, cpu, vcpu, ip]: [&str; 8]| {
        let mut cells = vec![
            right(when, 4),
            left(what, 23),
            left(who, if is_narrow { 13 } else { 15 }),
            right(pid, 7),
        ];
        if !is_narrow {
            cells.push(right(tid, 7));
        }
        cells.extend([right(cpu, 3), right(vcpu, 4), ip.to_owned()]);
        cut(cells.join(" ").trim_end(), columns)
    };
    let head = line([
        "AGO", "EVENT", "COMM", "PID", "THREAD", "CPU", "VCPU", "WHERE",
    ]);
    let mut lines = vec![Line::styled(left(&head, columns), theme.head())];
    lines.extend(stories.iter().map(|story| {
        Line::raw(line([
            &age(now - story.time),
            &story.event,
            &story.comm,
            &story.pid.to_string(),
            &story.tid.to_string(),
            &story.cpu.to_string(),
            &story
                .vcpu
                .map_or_else(|| "-".to_owned(), |vcpu| vcpu.to_string()),
            story
                .function
                .as_ref()
                .or(story.ip.as_ref())
                .map_or("-", |place| place),
        ]))
    }));
    lines
}
