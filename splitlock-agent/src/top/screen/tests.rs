use std::{sync::Arc, time::Duration};

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};
use serde_json::json;

use super::*;
use crate::{
    subjects::SubjectId,
    top::{
        answer::{self, Detail},
        fixture::{answer, body, pictures, process, vm},
        keys,
        order::{Column, Sort},
        picture::Picture,
        theme::Theme,
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn three_seconds() -> Vec<Picture> {
    let vms = |second: u64| {
        vec![
            vm(10, "web1", 40 * second, 4000 * second),
            vm(11, "db1", 3, 900 * second),
            vm(12, "a\u{1b}[2Jb\u{202e}c", 0, 0),
        ]
    };
    pictures((0..3).map(|second| {
        let processes = [process(20, "batch", 5 * second), process(21, "idle", 7)];
        answer(second as f64, &vms(second), &processes)
    }))
}

fn app(has_colour: bool) -> App {
    let sort = Sort {
        column: Column::LockRate,
        reversed: false,
    };
    let mut pictures = three_seconds().into_iter();
    let first = pictures.next().unwrap();
    let mut app = App::new(
        "http://hv1:9839",
        Theme::new(has_colour),
        SECOND,
        sort,
        first,
    );
    for picture in pictures {
        app.take_picture(Arc::new(picture), SECOND);
    }
    app
}

fn drawn(app: &mut App, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(app: &mut App, width: u16, height: u16) -> String {
    let buffer = drawn(app, width, height);
    let line = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..height)
        .map(|y| line(y).trim_end().to_owned() + "\n")
        .collect()
}

fn press(app: &mut App, code: KeyCode) {
    keys::press(app, KeyEvent::new(code, KeyModifiers::NONE));
}

#[track_caller]
fn assert_has(screen: &str, parts: &[&str]) {
    for part in parts {
        assert!(screen.contains(part), "{part:?} in:\n{screen}");
    }
}

#[test]
fn an_ordinary_terminal() {
    let screen = text(&mut app(false), 80, 24);
    let expected = "\
splitlock-agent top  http://hv1:9839 · Linux 6.18.0                     every 1s
Detection  warn: offenders go on (memory); locks of processes: seen,
           of guests: NOT SEEN
Locks      10/s, 20 in all: user split warned 10/s (20)
Hooks      1 of 2 attached; not: handle_bus_lock
Lost       record_rate_limit 2.0/s (4)
[VMs 3]  Processes 2
  VM         ▼LOCK/S   LOCKS OUTCOME   DELAY/S  EXIT/S TOP EXIT     #AC/S STATE
> web1            40      80 warned      400ms    4000 msr_write        0 runs
  db1              0       3 warned          0     900 msr_write        0 runs
  a\\x1b[2Jb…       0       0 -               0       0 -                0 runs
";
    assert!(screen.starts_with(expected), "{screen}");
    let last = screen.lines().last().unwrap();
    assert_has(last, &["q quit", "? help", "Space pause", "e events"]);
}

#[test]
fn a_large_terminal_has_both_tables() {
    let screen = text(&mut app(false), 120, 40);
    assert_has(
        &screen,
        &[
            "[VMs 3]",
            " Processes 2",
            "split warned",
            "WHERE",
            "add_up",
            "batch.service",
            "x.scope",
            "Past ",
        ],
    );
}

#[test]
fn a_small_terminal_has_what_matters_most() {
    let screen = text(&mut app(false), 40, 10);
    assert_has(
        &screen,
        &["VM", "LOCK/S", "web1", "Detection warn", "q quit"],
    );
    for (width, height) in [(39, 10), (40, 9), (1, 1)] {
        let screen = text(&mut app(false), width, height);
        assert!(screen.starts_with('T'), "{screen}");
    }
    assert_has(
        &text(&mut app(false), 39, 9),
        &["Too small: 39x9", "40x10", "q quits"],
    );
}

/// Colours add nothing: the same words and signs are there without, and no colour is.
#[test]
fn nothing_is_told_by_colour_alone() {
    for (width, height) in [(80, 24), (120, 40), (40, 10)] {
        for page in [
            KeyCode::Null,
            KeyCode::Enter,
            KeyCode::Char('e'),
            KeyCode::Char('?'),
        ] {
            let [mut with, mut without] = [true, false].map(app);
            press(&mut with, page);
            press(&mut without, page);
            assert_eq!(
                text(&mut with, width, height),
                text(&mut without, width, height)
            );
            let colours = |buffer: &Buffer| {
                let cells = buffer.content().iter();
                cells
                    .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
                    .count()
            };
            assert_eq!(colours(&drawn(&mut without, width, height)), 0);
            if height >= 24 && page == KeyCode::Null {
                assert!(colours(&drawn(&mut with, width, height)) > 0);
            }
        }
    }
}

/// Whatever comes, no cell has a control character.
#[test]
fn names_cannot_steer_the_terminal() {
    let mut app = app(true);
    app.take_failure("\\x1b[2J".to_owned());
    for page in [KeyCode::Null, KeyCode::End, KeyCode::Enter] {
        press(&mut app, page);
        let buffer = drawn(&mut app, 120, 40);
        let is_plain = |symbol: &str| !symbol.chars().any(char::is_control);
        assert!(buffer.content().iter().all(|cell| is_plain(cell.symbol())));
    }
    assert_has(&text(&mut app, 120, 40), &["VM a\\x1b[2Jb\\xe2\\x80\\xaec"]);
}

#[test]
fn one_subject_has_its_past_its_exits_and_its_addresses() {
    let mut app = app(false);
    press(&mut app, KeyCode::Enter);
    let screen = text(&mut app, 80, 24);
    assert_has(
        &screen,
        &[
            "VM web1  runs",
            "id-of-web1",
            "qemu, 2 vCPUs",
            "██",
            "750",
            "msr_write",
            "held up",
        ][..4],
    );
    let screen = text(&mut app, 80, 60);
    assert_has(
        &screen,
        &[
            "    3000       6000  msr_write",
            "held up",
            "no address yet",
        ],
    );

    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Enter);
    // What the snapshot has of it, as long as the agent has not answered.
    let known = [
        "Process batch  runs",
        "batch.service",
        "12x add_up+0x16  alignment_check",
        "batch.c:42",
        "/usr/bin/batch+0x1136",
        "  instruction mov eax,[rax]",
        "4 bytes from byte 62 of 64, crosses a cache line",
    ];
    assert_has(&text(&mut app, 80, 40), &known);
    let key = app.wanted().unwrap();
    app.take_detail(key, None);
    assert_has(&text(&mut app, 80, 40), &known);

    let body = json!({
        "schema": 1, "taken_at": 1002.0, "other_records": 9,
        "sites": [{"event": "alignment_check", "ip": "0xdead", "records": 3, "last": 1.0,
                   "code": {"missing": "the process has ended"}}],
        "recent": [{"time": 1000.0, "event": "alignment_check", "pid": 20, "tid": 20,
                    "comm": "batch", "cpu": 1, "ip": "0xdead", "function": "add_up+0x16"}],
    });
    let detail: Detail = answer::read(body.to_string().as_bytes()).unwrap();
    app.take_detail(key, Some(detail));
    assert_has(
        &text(&mut app, 80, 40),
        &[
            "3x 0xdead",
            "the process has ended",
            "9 records of further",
            "Its newest events",
            "2s alignment_check",
            "- add_up+0x16",
        ],
    );
}

#[test]
fn the_cursor_stays_on_its_subject() {
    let mut app = app(false);
    press(&mut app, KeyCode::Down);
    assert_has(&text(&mut app, 80, 24), &["> db1"]);
    press(&mut app, KeyCode::Char('N'));
    assert_has(&text(&mut app, 80, 24), &["> db1", "VM▲"]);
    press(&mut app, KeyCode::Char('r'));
    assert_has(&text(&mut app, 80, 24), &["> db1", "VM▼"]);
    // It leaves only when its subject does.
    let newer = pictures([answer(3.0, &[vm(10, "web1", 999, 1)], &[])]).remove(0);
    app.take_picture(Arc::new(newer), SECOND);
    assert_has(&text(&mut app, 80, 24), &["> web1"]);
    // On the first row it stays there, whoever that is.
    let newer = pictures([answer(
        3.0,
        &[vm(9, "worse", 9999, 1), vm(10, "web1", 1, 1)],
        &[],
    )]);
    app.tables[0].sort.column = Column::Locks;
    app.tables[0].sort.reversed = false;
    app.take_picture(Arc::new(newer.into_iter().next().unwrap()), SECOND);
    assert_has(&text(&mut app, 80, 24), &["> worse"]);
}

#[test]
fn a_picture_that_is_looked_at_closely_may_end() {
    let mut app = app(false);
    press(&mut app, KeyCode::Enter);
    app.take_picture(
        Arc::new(pictures([answer(3.0, &[], &[])]).remove(0)),
        SECOND,
    );
    assert_has(
        &text(&mut app, 80, 24),
        &["VM web1  no longer in the snapshot", "id-of-web1"],
    );
}

#[test]
fn a_pause_keeps_the_picture_and_goes_on_behind_it() {
    let mut app = app(false);
    press(&mut app, KeyCode::Char(' '));
    let before = text(&mut app, 80, 24);
    assert_has(&before, &["PAUSED", "web1"]);
    app.take_picture(
        Arc::new(pictures([answer(3.0, &[], &[])]).remove(0)),
        SECOND,
    );
    assert_eq!(text(&mut app, 80, 24), before);
    press(&mut app, KeyCode::Char(' '));
    assert_has(&text(&mut app, 80, 24), &["every 1s", "No VM has run"]);
}

#[test]
fn an_agent_that_is_gone_leaves_its_last_picture() {
    let mut app = app(false);
    app.take_failure("http://hv1:9839: connection refused".to_owned());
    assert_has(
        &text(&mut app, 120, 24),
        &["NO ANSWER", "last picture", "connection refused", "> web1 "],
    );
    let mut back = three_seconds().pop().unwrap();
    back.restarted = true;
    app.take_picture(Arc::new(back), 3 * SECOND);
    assert_has(&text(&mut app, 80, 24), &["has started anew", "every 3.0s"]);
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let mut app = app(false);
    for code in "/WEB q".chars().map(KeyCode::Char) {
        press(&mut app, code);
    }
    assert_has(
        &text(&mut app, 80, 24),
        &["/WEB q_", "None of 3 has: WEB q"],
    );
    press(&mut app, KeyCode::Backspace);
    press(&mut app, KeyCode::Enter);
    let screen = text(&mut app, 80, 24);
    assert_has(&screen, &["[VMs 1 of 3]", "filter: WEB", "> web1"]);
    assert!(!screen.contains("db1"));
    press(&mut app, KeyCode::Esc);
    assert_has(&text(&mut app, 80, 24), &["[VMs 3]"]);
}

#[test]
fn a_filter_from_the_command_line_shows_the_table_that_has_some() {
    let mut app = app(false);
    app.filter_by("batch");
    assert_has(
        &text(&mut app, 80, 24),
        &["VMs 0 of 3", "[Processes 2]", "> batch"],
    );
}

#[test]
fn every_column_can_be_sorted_by_and_is_then_shown() {
    let mut app = app(false);
    for focus in Kind::ALL {
        app.focus = focus;
        let mut seen = vec![];
        for _ in columns::all(focus) {
            press(&mut app, KeyCode::Char('>'));
            seen.push(app.tables[focus.index()].sort.column);
            let screen = text(&mut app, 80, 24);
            assert!(screen.contains(['▼', '▲']), "{:?}\n{screen}", seen.last());
        }
        for (column, _) in columns::all(focus) {
            assert!(seen.contains(&column), "{column:?}");
        }
    }
}

/// Five thousand VMs and as many processes are read and drawn in a moment, even by a build for tests.
#[test]
fn a_crowd_is_fluent() {
    let bodies = [1, 2].map(|second: u64| {
        let vms: Vec<_> = (0..5000)
            .map(|n| vm(n, &format!("vm-{n}"), u64::from(n) * second, 1000 * second))
            .collect();
        let processes: Vec<_> = (0..5000)
            .map(|n| process(n, &format!("comm-{n}"), u64::from(n) * second))
            .collect();
        body(second as f64, &vms, &processes)
    });
    let start = std::time::Instant::now();
    let answers = bodies
        .each_ref()
        .map(|body| answer::read(body.as_bytes()).unwrap());
    let read = start.elapsed();
    let start = std::time::Instant::now();
    let pictures = pictures(answers);
    let digested = start.elapsed();
    let sort = Sort {
        column: Column::LockRate,
        reversed: false,
    };
    let mut app = App::new("x", Theme::new(true), SECOND, sort, pictures[1].clone());
    let start = std::time::Instant::now();
    press(&mut app, KeyCode::Down);
    app.refresh();
    let screen = text(&mut app, 120, 40);
    let framed = start.elapsed();
    println!(
        "two answers of {} bytes read in {read:?}, digested in {digested:?}; one frame in {framed:?}",
        bodies[1].len()
    );
    assert_has(&screen, &["[VMs 5000]", "vm-4999"]);
    assert_eq!(
        app.selected().unwrap().key(),
        SubjectId {
            pid: 4998,
            start_ticks: 100
        }
    );
    assert!(
        read + digested < 10 * SECOND && framed < 2 * SECOND,
        "{read:?} {digested:?} {framed:?}"
    );
}
