//! What is known and what is looked at, between one event and the next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    answer::Detail,
    columns::Heads,
    history::History,
    order::{self, Sort},
    picture::{Kind, Picture, Row},
    theme::Theme,
};
use crate::subjects::SubjectId;

/// How long a restart of the agent is told of.
const RESTART_TOLD: Duration = Duration::from_secs(10);

/// One of the tables, as it is looked at.
#[derive(Clone, Debug)]
pub struct Table {
    /// The order of its rows.
    pub sort: Sort,
    /// Indexes of the rows that are shown, in that order.
    pub order: Vec<usize>,
    /// Whom the cursor is on; `None` for whoever is first.
    pub cursor: Option<SubjectId>,
    /// Its place, for when that subject is gone.
    pub place: usize,
    /// The first row on the screen.
    pub first: usize,
    /// Rows on the screen.
    pub height: usize,
}

impl Table {
    const fn new(sort: Sort) -> Self {
        Self {
            sort,
            order: vec![],
            cursor: None,
            place: 0,
            first: 0,
            height: 1,
        }
    }

    /// Moves the cursor to a place, or as near as there are rows.
    pub fn go_to(&mut self, place: usize, rows: &[Row]) {
        self.place = place.min(self.order.len().saturating_sub(1));
        let on = self.order.get(self.place).map(|index| rows[*index].key());
        // On the first row it stays with the place, so that the worst is in view.
        self.cursor = on.filter(|_| self.place > 0);
    }

    /// Finds the cursor's subject among rows that may have moved.
    fn follow(&mut self, rows: &[Row]) {
        let found = self.cursor.and_then(|cursor| {
            self.order
                .iter()
                .position(|index| rows[*index].key() == cursor)
        });
        match (found, self.cursor) {
            (Some(place), _) => self.place = place,
            (None, Some(_)) => self.go_to(self.place, rows),
            (None, None) => self.place = 0,
        }
    }

    /// Moves what is on the screen so that the cursor is.
    pub fn scroll(&mut self, height: usize) {
        self.height = height.max(1);
        let last = self.order.len().saturating_sub(self.height);
        self.first = self
            .first
            .clamp((self.place + 1).saturating_sub(self.height), self.place)
            .min(last);
    }
}

/// What fills the screen.
#[derive(Clone, Debug)]
pub enum Page {
    /// The tables.
    Tables,
    /// The newest events.
    Events,
    /// One subject: its last known row.
    Subject(Box<Row>),
}

/// Whether the agent answers.
#[derive(Clone, Debug)]
pub enum Link {
    /// It does.
    Up,
    /// It does not.
    Down {
        /// Since when.
        since: Instant,
        /// What happened.
        why: String,
    },
}

/// A picture, and what was before it.
#[derive(Clone, Debug)]
struct Shown {
    picture: Arc<Picture>,
    history: History,
}

/// All of it.
pub struct App {
    /// What is watched.
    pub source: String,
    /// Colours.
    pub theme: Theme,
    /// Time from one look to the next that is wanted.
    pub interval: Duration,
    /// And that is kept, where looks take long.
    pub pace: Duration,
    /// Whether the agent answers.
    pub link: Link,
    /// When it was last seen to have begun anew.
    restarted: Option<Instant>,
    live: Shown,
    /// What is shown while it is paused.
    frozen: Option<Shown>,
    /// The agent's answer about one subject; `None` where it has no more of it.
    pub detail: Option<(SubjectId, Option<Detail>)>,
    /// The tables.
    pub tables: [Table; 2],
    /// The one that keys go to.
    pub focus: Kind,
    /// Words that rows have to have.
    pub filter: String,
    /// The filter before it was edited, while it is.
    pub editing: Option<String>,
    /// What fills the screen.
    pub page: Page,
    /// The first line of a page that is not a table.
    pub scroll: usize,
    /// Lines that such a page can be scrolled by, and lines on the screen.
    pub scrollable: (usize, usize),
    /// Whether the help is over it.
    pub help: bool,
}

impl App {
    /// With a first picture.
    pub fn new(
        source: &str,
        theme: Theme,
        interval: Duration,
        sort: Sort,
        picture: Picture,
    ) -> Self {
        let mut app = Self {
            source: source.to_owned(),
            theme,
            interval,
            pace: interval,
            link: Link::Up,
            restarted: None,
            live: Shown {
                picture: Arc::new(picture),
                history: History::default(),
            },
            frozen: None,
            detail: None,
            tables: [Table::new(sort), Table::new(sort)],
            focus: Kind::Vm,
            filter: String::new(),
            editing: None,
            page: Page::Tables,
            scroll: 0,
            scrollable: (0, 1),
            help: false,
        };
        app.filter_by("");
        app
    }

    /// Shows only rows with these words, and goes to the table that has some.
    pub fn filter_by(&mut self, words: &str) {
        words.clone_into(&mut self.filter);
        self.refresh();
        self.focus = if self.tables[Kind::Vm.index()].order.is_empty() {
            Kind::Process
        } else {
            Kind::Vm
        };
    }

    /// A new picture came.
    pub fn take_picture(&mut self, picture: Arc<Picture>, pace: Duration) {
        self.link = Link::Up;
        self.pace = pace;
        if picture.restarted {
            self.restarted = Some(picture.at);
        }
        self.live.history.add(&picture);
        self.live.picture = picture;
        self.refresh();
    }

    /// None came.
    pub fn take_failure(&mut self, why: String) {
        let since = match self.link {
            Link::Up => Instant::now(),
            Link::Down { since, .. } => since,
        };
        self.link = Link::Down { since, why };
    }

    /// What the agent has of one subject.
    pub fn take_detail(&mut self, key: SubjectId, detail: Option<Detail>) {
        let is_known = self.detail.as_ref().is_some_and(|(known, _)| *known == key);
        if self.frozen.is_none() || !is_known {
            self.detail = Some((key, detail));
        }
    }

    /// The picture to show.
    pub fn picture(&self) -> &Arc<Picture> {
        &self.frozen.as_ref().unwrap_or(&self.live).picture
    }

    /// And its past.
    pub fn history(&self) -> &History {
        &self.frozen.as_ref().unwrap_or(&self.live).history
    }

    /// Whether what is shown stands still.
    pub const fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Lets it stand still, or go on.
    pub fn pause(&mut self) {
        self.frozen = match self.frozen {
            Some(_) => None,
            None => Some(self.live.clone()),
        };
        self.refresh();
    }

    /// Whether the agent began anew a moment ago.
    pub fn has_restarted(&self) -> bool {
        self.restarted.is_some_and(|at| at.elapsed() < RESTART_TOLD)
    }

    /// What heads depend on.
    pub fn heads(&self) -> Heads {
        Heads {
            counts_exits: self.picture().counts_exits,
        }
    }

    /// The table that keys go to.
    pub fn table(&mut self) -> &mut Table {
        &mut self.tables[self.focus.index()]
    }

    /// Moves the cursor of that table.
    pub fn go_to(&mut self, place: usize) {
        let picture = Arc::clone(self.picture());
        let rows = picture.rows(self.focus);
        self.table().go_to(place, rows);
    }

    /// The row under the cursor.
    pub fn selected(&self) -> Option<&Row> {
        let table = &self.tables[self.focus.index()];
        let index = table.order.get(table.place)?;
        self.picture().rows(self.focus).get(*index)
    }

    /// Of whom there should be more than the snapshot has.
    pub fn wanted(&self) -> Option<SubjectId> {
        match &self.page {
            Page::Subject(row) => Some(row.key()),
            Page::Tables | Page::Events => None,
        }
    }

    /// Whether the subject that fills the screen is in the picture.
    pub fn is_present(&self, row: &Row) -> bool {
        self.picture().find(row.kind, row.key()).is_some()
    }

    /// Puts the rows in order again, after a new picture, sort or filter.
    pub fn refresh(&mut self) {
        let picture = Arc::clone(self.picture());
        for kind in Kind::ALL {
            let rows = picture.rows(kind);
            let table = &mut self.tables[kind.index()];
            table.order = order::shown(rows, table.sort, picture.counts_exits, &self.filter);
            table.follow(rows);
        }
        if let Page::Subject(row) = &mut self.page
            && let Some(newer) = picture.find(row.kind, row.key())
        {
            **row = newer.clone();
        }
    }
}
