use std::time::Duration;

use super::*;
use crate::top::{
    fixture::{answer, pictures, vm},
    order::Sort,
    theme::Theme,
};

fn app(vms: u32) -> App {
    let vms: Vec<_> = (0..vms)
        .map(|n| vm(n, &format!("vm{n:02}"), 0, 0))
        .collect();
    let sort = Sort {
        column: Column::Name,
        reversed: false,
    };
    let picture = pictures([answer(0.0, &vms, &[])]).remove(0);
    let mut app = App::new(
        "x",
        Theme::new(false),
        Duration::from_secs(1),
        sort,
        picture,
    );
    app.table().scroll(5);
    app
}

fn tap(app: &mut App, code: KeyCode) -> Next {
    press(app, KeyEvent::new(code, KeyModifiers::NONE))
}

fn control(app: &mut App, letter: char) -> Next {
    press(
        app,
        KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL),
    )
}

#[test]
fn the_ways_out() {
    let mut app = app(3);
    assert_eq!(tap(&mut app, KeyCode::Char('q')), Next::Quit);
    assert_eq!(control(&mut app, 'c'), Next::Quit);
    assert_eq!(control(&mut app, 'z'), Next::Suspend);
    tap(&mut app, KeyCode::Enter);
    assert_eq!(tap(&mut app, KeyCode::Char('q')), Next::Quit);
    tap(&mut app, KeyCode::Char('/'));
    // Text to search for.
    tap(&mut app, KeyCode::Esc);
    tap(&mut app, KeyCode::Char('/'));
    assert_eq!(tap(&mut app, KeyCode::Char('q')), Next::Draw);
    assert_eq!(app.filter, "q");
    assert_eq!(control(&mut app, 'c'), Next::Quit);
}

#[test]
fn the_cursor_moves_within_the_rows() {
    let mut app = app(20);
    let on = |app: &App| app.selected().unwrap().name().to_owned();
    for (code, name) in [
        (KeyCode::Up, "vm00"),
        (KeyCode::Down, "vm01"),
        (KeyCode::Char('j'), "vm02"),
        (KeyCode::PageDown, "vm07"),
        (KeyCode::PageUp, "vm02"),
        (KeyCode::End, "vm19"),
        (KeyCode::Down, "vm19"),
        (KeyCode::Char('k'), "vm18"),
        (KeyCode::Home, "vm00"),
    ] {
        tap(&mut app, code);
        assert_eq!(on(&app), name, "{code:?}");
    }
    tap(&mut app, KeyCode::End);
    app.table().scroll(5);
    assert_eq!(app.table().first, 15);
    // A window that grew shows as many as it can.
    app.table().scroll(30);
    assert_eq!(app.table().first, 0);
}

#[test]
fn nothing_to_stand_on_is_no_trap() {
    let mut app = app(0);
    for code in [
        KeyCode::Down,
        KeyCode::End,
        KeyCode::PageDown,
        KeyCode::Enter,
        KeyCode::Tab,
        KeyCode::Enter,
        KeyCode::Char('>'),
    ] {
        tap(&mut app, code);
    }
    assert!(matches!(app.page, Page::Tables));
    assert!(app.selected().is_none());
}

#[test]
fn pages_and_back() {
    let mut app = app(3);
    tap(&mut app, KeyCode::Enter);
    assert!(app.wanted().is_some());
    tap(&mut app, KeyCode::Char('e'));
    assert!(matches!(app.page, Page::Events));
    tap(&mut app, KeyCode::Esc);
    assert!(matches!(app.page, Page::Tables));
    tap(&mut app, KeyCode::Char('?'));
    assert!(app.help);
    tap(&mut app, KeyCode::Esc);
    assert!(!app.help && matches!(app.page, Page::Tables));
    // A key that does something closes the help and does it.
    tap(&mut app, KeyCode::Char('?'));
    tap(&mut app, KeyCode::Down);
    assert_eq!(app.selected().unwrap().name(), "vm01");
}

#[test]
fn letters_sort_and_turn_round() {
    let mut app = app(3);
    for (letter, column, _) in LETTERS {
        tap(&mut app, KeyCode::Char(letter));
        let sort = app.table().sort;
        assert_eq!(sort.column, column);
        tap(&mut app, KeyCode::Char(letter));
        assert_ne!(app.table().sort.reversed, sort.reversed, "{letter}");
    }
    // Processes have no exits.
    tap(&mut app, KeyCode::Tab);
    let before = app.table().sort;
    tap(&mut app, KeyCode::Char('X'));
    assert_eq!(app.table().sort, before);
}
