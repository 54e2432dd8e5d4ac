//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    app::{App, Page},
    columns::{self, Columns},
    order::Column,
};

/// What comes after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The screen as it is then.
    Draw,
    /// The end.
    Quit,
    /// The shell, until it brings `top` back.
    Suspend,
}

/// Longest filter, in characters.
const LONGEST_FILTER: usize = 200;

/// A key was pressed.
pub fn press(app: &mut App, key: KeyEvent) -> Next {
    if key.kind == KeyEventKind::Release {
        return Next::Draw;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        match key.code {
            KeyCode::Char('c') => return Next::Quit,
            KeyCode::Char('z') => return Next::Suspend,
            _ => {}
        }
    }
    if app.editing.is_some() {
        edit(app, key);
        return Next::Draw;
    }
    if app.help {
        app.help = false;
        let closes = matches!(
            key.code,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('?' | 'h')
        );
        if closes {
            return Next::Draw;
        }
    }
    match key.code {
        KeyCode::Char('q') => return Next::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => app.help = true,
        KeyCode::Char(' ') => app.pause(),
        KeyCode::Char('e') => {
            app.page = match app.page {
                Page::Events => Page::Tables,
                Page::Tables | Page::Subject(_) => Page::Events,
            };
            app.scroll = 0;
        }
        KeyCode::Esc => back(app),
        _ => match app.page {
            Page::Tables => in_tables(app, key.code),
            Page::Events | Page::Subject(_) => in_text(app, key.code),
        },
    }
    Next::Draw
}

/// From a page to the tables, then from a filter to none.
fn back(app: &mut App) {
    if matches!(app.page, Page::Tables) {
        app.filter.clear();
        app.refresh();
    }
    app.page = Page::Tables;
}

fn in_tables(app: &mut App, code: KeyCode) {
    let table = app.table();
    let (place, height) = (table.place, table.height);
    match code {
        KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right => {
            app.focus = app.focus.other();
        }
        KeyCode::Up | KeyCode::Char('k') => app.go_to(place.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => app.go_to(place + 1),
        KeyCode::PageUp => app.go_to(place.saturating_sub(height)),
        KeyCode::PageDown => app.go_to(place + height),
        KeyCode::Home | KeyCode::Char('g') => app.go_to(0),
        KeyCode::End | KeyCode::Char('G') => app.go_to(usize::MAX),
        KeyCode::Enter => {
            if let Some(row) = app.selected() {
                app.page = Page::Subject(Box::new(row.clone()));
                app.scroll = 0;
            }
        }
        KeyCode::Char('/') => app.editing = Some(app.filter.clone()),
        KeyCode::Char('r') => {
            let sort = &mut app.table().sort;
            sort.reversed = !sort.reversed;
            app.refresh();
        }
        KeyCode::Char('<' | ',') => step(app, |place, count| (place + count - 1) % count),
        KeyCode::Char('>' | '.') => step(app, |place, count| (place + 1) % count),
        KeyCode::Char(letter) => {
            let focus = app.focus;
            let column = LETTERS.iter().find(|(known, ..)| *known == letter);
            if let Some((_, column, _)) = column.filter(|(_, column, _)| column.applies(focus)) {
                sort_by(app, *column);
            }
        }
        _ => {}
    }
}

/// Letters that sort, the column, and what the help calls it.
pub const LETTERS: [(char, Column, &str); 13] = [
    ('N', Column::Name, "name"),
    ('P', Column::Pid, "pid"),
    ('L', Column::LockRate, "locks per second"),
    ('S', Column::SplitRate, "split locks per second"),
    ('B', Column::BusRate, "bus locks per second"),
    ('T', Column::Locks, "locks in total"),
    ('O', Column::Outcome, "outcome"),
    ('D', Column::Delay, "delay"),
    ('X', Column::ExitRate, "exits per second"),
    ('A', Column::CheckRate, "#AC or alignment checks per second"),
    ('U', Column::Unit, "unit"),
    ('W', Column::Site, "where: function or address"),
    ('R', Column::State, "running or ended"),
];

fn sort_by(app: &mut App, column: Column) {
    let sort = &mut app.table().sort;
    // A second time turns it round.
    sort.reversed = sort.column == column && !sort.reversed;
    sort.column = column;
    app.refresh();
}

/// To the column beside it, among all that this kind of subject has.
fn step(app: &mut App, to: fn(usize, usize) -> usize) {
    let focus = app.focus;
    let columns: Columns = columns::all(focus);
    let sort = app.table().sort;
    let place = columns
        .iter()
        .position(|(column, _)| *column == sort.column)
        .unwrap_or(0);
    let (column, _) = columns[to(place, columns.len())];
    let sort = &mut app.table().sort;
    sort.column = column;
    sort.reversed = false;
    app.refresh();
}

fn in_text(app: &mut App, code: KeyCode) {
    let (most, height) = app.scrollable;
    let scroll = match code {
        KeyCode::Up | KeyCode::Char('k') => app.scroll.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => app.scroll + 1,
        KeyCode::PageUp => app.scroll.saturating_sub(height),
        KeyCode::PageDown => app.scroll + height,
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => most,
        KeyCode::Backspace | KeyCode::Left => {
            app.page = Page::Tables;
            return;
        }
        _ => return,
    };
    app.scroll = scroll.min(most);
}

fn edit(app: &mut App, key: KeyEvent) {
    match key.code {
        KeyCode::Enter => app.editing = None,
        KeyCode::Esc => app.filter = app.editing.take().unwrap_or_default(),
        KeyCode::Backspace => {
            app.filter.pop();
        }
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => app.filter.clear(),
        KeyCode::Char(character)
            if !character.is_control() && app.filter.chars().count() < LONGEST_FILTER =>
        {
            app.filter.push(character);
        }
        _ => {}
    }
    app.refresh();
}

#[cfg(test)]
mod tests;
