//! The columns of the tables: which ones fit, and what is in them.

use super::{
    figures::{self, age, count, left, rate, right, span},
    order::{Column, Sort},
    picture::{Kind, Row},
};

/// Columns of the screen with their widths, from the left.
pub type Columns = Vec<(Column, usize)>;

/// As wide as everything is: for a pipe.
pub const UNLIMITED: usize = usize::MAX;

/// The narrowest table.
const NARROWEST: usize = 30;

/// What the columns of names and places get beyond their least, before there are further ones.
const RESERVE: usize = 20;

/// What is shown first where there is not room for all.
const VM_COLUMNS: [Column; 15] = [
    Column::Name,
    Column::LockRate,
    Column::Locks,
    Column::ExitRate,
    Column::Outcome,
    Column::Delay,
    Column::CheckRate,
    Column::State,
    Column::TopExit,
    Column::Unit,
    Column::Site,
    Column::SplitRate,
    Column::BusRate,
    Column::Pid,
    Column::Checks,
];
const PROCESS_COLUMNS: [Column; 13] = [
    Column::Name,
    Column::LockRate,
    Column::Locks,
    Column::CheckRate,
    Column::Pid,
    Column::Outcome,
    Column::State,
    Column::Unit,
    Column::Site,
    Column::Delay,
    Column::Checks,
    Column::SplitRate,
    Column::BusRate,
];

/// The columns for so many characters, with a gap of one between them; that by which the rows are
/// sorted is among them. `rows` are measured where there is no limit.
pub fn fitting(kind: Kind, columns: usize, sort: Sort, rows: &[&Row], heads: Heads) -> Columns {
    let wanted: &[Column] = match kind {
        Kind::Vm => &VM_COLUMNS,
        Kind::Process => &PROCESS_COLUMNS,
    };
    if columns == UNLIMITED {
        return Column::ALL
            .into_iter()
            .filter(|column| wanted.contains(column))
            .map(|column| {
                let widest = rows
                    .iter()
                    .map(|row| figures::width(&text(row, column, UNLIMITED, heads)))
                    .max();
                let head = figures::width(heads.of(kind, column)) + 1;
                (column, widest.unwrap_or(0).max(head))
            })
            .collect();
    }
    let first = [Column::Name, sort.column];
    let rest = wanted.iter().filter(|column| !first.contains(column));
    let mut chosen: Columns = vec![];
    let mut left_over = columns.max(NARROWEST);
    let mut reserve = 0;
    for column in first.iter().chain(rest).copied() {
        let width = least(kind, column);
        let gap = usize::from(!chosen.is_empty());
        if !column.applies(kind) || chosen.iter().any(|(known, _)| *known == column) {
            continue;
        }
        if width + gap + reserve > left_over {
            // What comes after is less worth knowing, if narrower.
            break;
        }
        left_over -= width + gap;
        chosen.push((column, width));
        if column == Column::Site && sort.column != Column::Site {
            // From here on names in full are worth more than further columns.
            reserve = RESERVE;
        }
    }
    for (column, most) in [
        (Column::Name, 14),
        (Column::Unit, 14),
        (Column::Outcome, 13),
        (Column::Site, 20),
        (Column::Unit, 24),
        (Column::TopExit, 18),
        (Column::Site, 40),
        (Column::Unit, 40),
        (Column::Name, 40),
        (Column::Outcome, 24),
    ] {
        if let Some((_, width)) = chosen.iter_mut().find(|(known, _)| *known == column) {
            let more = left_over.min(most - (*width).min(most));
            *width += more;
            left_over -= more;
        }
    }
    chosen.sort_by_key(|(column, _)| Column::ALL.iter().position(|known| known == column));
    chosen
}

/// All columns of a kind of subject, in the order of the screen.
pub fn all(kind: Kind) -> Columns {
    Column::ALL
        .into_iter()
        .filter(|column| column.applies(kind))
        .map(|column| (column, least(kind, column)))
        .collect()
}

/// What is not the same in all tables' heads.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Whether VM exits are counted; else returns to the VMM.
    pub counts_exits: bool,
}

impl Heads {
    /// The head of a column.
    pub const fn of(self, kind: Kind, column: Column) -> &'static str {
        match (column, kind) {
            (Column::Name, Kind::Vm) => "VM",
            (Column::Name, Kind::Process) => "PROCESS",
            (Column::Pid, _) => "PID",
            (Column::LockRate, _) => "LOCK/S",
            (Column::SplitRate, _) => "SPLIT/S",
            (Column::BusRate, _) => "BUS/S",
            (Column::Locks, _) => "LOCKS",
            (Column::Outcome, _) => "OUTCOME",
            (Column::Delay, _) => "DELAY/S",
            (Column::ExitRate, _) if self.counts_exits => "EXIT/S",
            (Column::ExitRate, _) => "VMM/S",
            (Column::TopExit, _) if self.counts_exits => "TOP EXIT",
            (Column::TopExit, _) => "TO VMM FOR",
            (Column::CheckRate, Kind::Vm) => "#AC/S",
            (Column::CheckRate, Kind::Process) => "ALIGN/S",
            (Column::Checks, Kind::Vm) => "#AC",
            (Column::Checks, Kind::Process) => "ALIGN",
            (Column::Unit, _) => "UNIT",
            (Column::Site, _) => "WHERE",
            (Column::State, _) => "STATE",
        }
    }
}

/// Numbers have six characters at most, and the mark of the sorted column takes one beside the head.
const fn least(kind: Kind, column: Column) -> usize {
    match (column, kind) {
        (Column::Name | Column::Unit | Column::Site, _) => 10,
        (Column::Outcome, _) => 8,
        (Column::TopExit, _) => 11,
        (Column::Delay, _) | (Column::CheckRate, Kind::Process) | (Column::SplitRate, _) => 8,
        (Column::State, _) => 6,
        (Column::CheckRate | Column::Checks, _) => 6,
        _ => 7,
    }
}

/// The line of heads. The sorted column has an arrow.
pub fn head(kind: Kind, columns: &Columns, sort: Sort, heads: Heads) -> String {
    line(columns.iter().map(|(column, width)| {
        let name = heads.of(kind, *column);
        if *column != sort.column {
            return place(*column, name, *width);
        }
        let is_rising = sort.reversed == column.is_number();
        let arrow = if is_rising { '▲' } else { '▼' };
        if column.is_number() {
            place(*column, &format!("{arrow}{name}"), *width)
        } else {
            place(*column, &format!("{name}{arrow}"), *width)
        }
    }))
}

/// The line of a row.
pub fn row(row: &Row, columns: &Columns, heads: Heads) -> String {
    line(
        columns
            .iter()
            .map(|(column, width)| place(*column, &text(row, *column, *width, heads), *width)),
    )
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.collect();
    cells.join(" ")
}

fn place(column: Column, text: &str, width: usize) -> String {
    if column.is_number() || column == Column::Pid {
        right(text, width)
    } else {
        left(text, width)
    }
}

fn text(row: &Row, column: Column, width: usize, heads: Heads) -> String {
    let rates = row.rates.as_ref();
    match column {
        Column::Name => row.name().to_owned(),
        Column::Pid => row.told.pid.to_string(),
        Column::LockRate => rate(rates.map(|rates| rates.locks())),
        Column::SplitRate => rate(rates.map(|rates| rates.split)),
        Column::BusRate => rate(rates.map(|rates| rates.bus)),
        Column::Locks => count(row.tally.locks()),
        Column::Outcome => outcomes(row, width),
        Column::Delay => rates.map_or_else(|| "-".to_owned(), |rates| span(rates.delay)),
        Column::ExitRate if heads.counts_exits => rate(rates.map(|rates| rates.exits)),
        Column::ExitRate => rate(rates.map(|rates| rates.returns)),
        Column::TopExit => row.top_reason.as_deref().unwrap_or("-").to_owned(),
        Column::CheckRate => rate(rates.map(|rates| rates.checks)),
        Column::Checks => count(row.tally.checks),
        Column::Unit => match row.unit() {
            "" => "-".to_owned(),
            unit => unit.to_owned(),
        },
        Column::Site => row.site().unwrap_or("-").to_owned(),
        Column::State => if row.told.alive { "runs" } else { "ended" }.to_owned(),
    }
}

/// What the kernel did: with kinds of locks and counts where there is room for them, and else the most
/// frequent.
fn outcomes(row: &Row, width: usize) -> String {
    let happened = row.told.traps.iter().filter(|traps| traps.count > 0);
    let mut traps: Vec<_> = happened.collect();
    traps.sort_by_key(|traps| std::cmp::Reverse(traps.count));
    let Some(first) = traps.first() else {
        return "-".to_owned();
    };
    let is_only = traps.len() == 1;
    let parts: Vec<String> = traps
        .iter()
        .map(|traps| {
            let trap = traps.trap.trim_end_matches("_lock");
            let counted = match is_only {
                true => String::new(),
                false => format!(":{}", count(traps.count)),
            };
            format!("{trap} {}{counted}", traps.outcome)
        })
        .collect();
    let full = parts.join(" ");
    if figures::width(&full) <= width {
        return full;
    }
    let others = if is_only { "" } else { "+" };
    format!("{}{others}", first.outcome)
}

/// How long ago a row's last lock was, at the time of a picture.
pub fn last_trap(row: &Row, taken_at: f64) -> Option<String> {
    Some(age(taken_at - row.told.last_trap?))
}
