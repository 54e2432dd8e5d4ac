//! Which rows are shown, and in which order.

use std::cmp::Ordering;

use clap::ValueEnum;

use super::picture::{Kind, Rates, Row};

/// A column to show, and to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// The VM's name, or the process's comm.
    Name,
    /// Process id.
    Pid,
    /// Split and bus locks per second.
    LockRate,
    /// Split locks per second.
    SplitRate,
    /// Bus locks per second.
    BusRate,
    /// Locks since the agent started.
    Locks,
    /// What the kernel did.
    Outcome,
    /// Time per second for which the kernel held it up.
    Delay,
    /// VM exits per second, or where those are not counted, returns to the VMM.
    ExitRate,
    /// The most frequent reason of those.
    TopExit,
    /// Alignment checks of a process per second, or those that KVM handed to a guest.
    CheckRate,
    /// All of them since the agent started.
    Checks,
    /// Container, else systemd unit.
    Unit,
    /// Where most of its records are from: the function, else the address.
    Site,
    /// Whether it runs.
    State,
}

impl Column {
    /// In the order of the screen.
    pub const ALL: [Self; 15] = [
        Self::Name,
        Self::Pid,
        Self::LockRate,
        Self::SplitRate,
        Self::BusRate,
        Self::Locks,
        Self::Outcome,
        Self::Delay,
        Self::ExitRate,
        Self::TopExit,
        Self::CheckRate,
        Self::Checks,
        Self::Unit,
        Self::Site,
        Self::State,
    ];

    /// Whether a kind of subject has it.
    pub fn applies(self, kind: Kind) -> bool {
        kind == Kind::Vm || !matches!(self, Self::ExitRate | Self::TopExit)
    }

    /// Whether it is a number, of which the largest comes first.
    pub const fn is_number(self) -> bool {
        !matches!(
            self,
            Self::Name
                | Self::Pid
                | Self::Outcome
                | Self::TopExit
                | Self::Unit
                | Self::Site
                | Self::State
        )
    }
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// Whether the other way round.
    pub reversed: bool,
}

impl Sort {
    /// How two rows stand to each other. No two are equal, so that rows stay in their places.
    pub fn compare(self, counts_exits: bool, one: &Row, other: &Row) -> Ordering {
        let Self { column, reversed } = self;
        let order = by(column, counts_exits, one, other);
        let order = if reversed { order.reverse() } else { order };
        order
            .then_with(|| worst_first(counts_exits, one, other))
            .then_with(|| one.name().cmp(other.name()))
            .then_with(|| one.key().cmp(&other.key()))
    }
}

/// Indexes of the rows that have all `words`, in order.
pub fn shown(rows: &[Row], sort: Sort, counts_exits: bool, words: &str) -> Vec<usize> {
    let words = words.to_lowercase();
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut shown: Vec<usize> = (0..rows.len())
        .filter(|index| {
            words
                .iter()
                .all(|word| rows[*index].searched.contains(word))
        })
        .collect();
    shown.sort_by(|one, other| sort.compare(counts_exits, &rows[*one], &rows[*other]));
    shown
}

/// What makes a subject worth a look, where the column tells no difference.
fn worst_first(counts_exits: bool, one: &Row, other: &Row) -> Ordering {
    [
        Column::LockRate,
        Column::Locks,
        Column::CheckRate,
        Column::Checks,
        Column::ExitRate,
    ]
    .into_iter()
    .map(|column| by(column, counts_exits, one, other))
    .find(|order| order.is_ne())
    .unwrap_or(Ordering::Equal)
}

/// The order of a column, largest numbers and first names first.
fn by(column: Column, counts_exits: bool, one: &Row, other: &Row) -> Ordering {
    // An unknown rate is less than none.
    let rate = |rate: fn(&Rates) -> f64| {
        let value = |row: &Row| row.rates.as_ref().map_or(-1.0, rate);
        value(other).total_cmp(&value(one))
    };
    let count = |count: fn(&Row) -> u64| count(other).cmp(&count(one));
    match column {
        Column::Name => one.name().cmp(other.name()),
        Column::Pid => one.told.pid.cmp(&other.told.pid),
        Column::LockRate => rate(Rates::locks),
        Column::SplitRate => rate(|rates| rates.split),
        Column::BusRate => rate(|rates| rates.bus),
        Column::Locks => count(|row| row.tally.locks()),
        Column::Outcome => outcomes(one).cmp(&outcomes(other)),
        Column::Delay => rate(|rates| rates.delay),
        Column::ExitRate if counts_exits => rate(|rates| rates.exits),
        Column::ExitRate => rate(|rates| rates.returns),
        Column::TopExit => none_last(one.top_reason.as_deref(), other.top_reason.as_deref()),
        Column::CheckRate => rate(|rates| rates.checks),
        Column::Checks => count(|row| row.tally.checks),
        Column::Unit => none_last(filled(one.unit()), filled(other.unit())),
        Column::Site => none_last(one.site(), other.site()),
        Column::State => other.told.alive.cmp(&one.told.alive),
    }
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn none_last(one: Option<&str>, other: Option<&str>) -> Ordering {
    one.is_none().cmp(&other.is_none()).then(one.cmp(&other))
}

/// What the kernel did, the worst for the offender first.
fn outcomes(row: &Row) -> [bool; 3] {
    ["sigbus", "throttled", "warned"].map(|outcome| {
        !row.told
            .traps
            .iter()
            .any(|traps| &*traps.outcome == outcome && traps.count > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::{
        fixture::{answer, pictures, process, vm},
        picture::Picture,
    };

    fn picture() -> Picture {
        pictures([
            answer(
                0.0,
                &[vm(1, "b", 100, 0), vm(2, "a", 5, 900), vm(3, "C", 0, 0)],
                &[process(9, "batch", 3)],
            ),
            answer(
                1.0,
                &[vm(1, "b", 101, 0), vm(2, "a", 15, 1000), vm(3, "C", 0, 0)],
                &[process(9, "batch", 4), process(10, "new", 1)],
            ),
        ])
        .pop()
        .unwrap()
    }

    fn names(kind: Kind, column: Column, reversed: bool, words: &str) -> Vec<String> {
        let picture = picture();
        let sort = Sort { column, reversed };
        let rows = picture.rows(kind);
        shown(rows, sort, picture.counts_exits, words)
            .into_iter()
            .map(|index| rows[index].name().to_owned())
            .collect()
    }

    #[test]
    fn every_column_has_an_order() {
        for (column, order) in [
            (Column::Name, ["C", "a", "b"]),
            (Column::Pid, ["b", "a", "C"]),
            (Column::LockRate, ["a", "b", "C"]),
            (Column::Locks, ["b", "a", "C"]),
            (Column::Delay, ["a", "b", "C"]),
            (Column::ExitRate, ["a", "b", "C"]),
            (Column::TopExit, ["a", "b", "C"]),
            // Nothing to tell them apart by: the worst first.
            (Column::State, ["a", "b", "C"]),
            (Column::Outcome, ["a", "b", "C"]),
        ] {
            assert_eq!(names(Kind::Vm, column, false, ""), order, "{column:?}");
        }
        assert_eq!(names(Kind::Vm, Column::Locks, true, ""), ["C", "a", "b"]);
    }

    #[test]
    fn a_filter_wants_all_words_anywhere() {
        let filtered = |words| names(Kind::Vm, Column::Name, false, words);
        assert_eq!(filtered("ID-OF-A"), ["a"]);
        assert_eq!(filtered("x.scope 3"), ["C"]);
        assert_eq!(filtered("nobody").len(), 0);
        assert_eq!(
            names(Kind::Process, Column::Name, false, "batch 9"),
            ["batch"]
        );
    }
}
