//! Colours. Everything that they tell, words and signs tell too.

use std::env;

use ratatui::style::{Color, Modifier, Style};

use crate::cli::top;

/// How things look.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    has_colour: bool,
}

impl Theme {
    /// As the command line and the environment want it. <https://no-color.org>: a `NO_COLOR` that is
    /// not empty, whatever it says.
    pub fn of(wish: top::Color) -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let has_colour = match wish {
            top::Color::Always => true,
            top::Color::Never => false,
            top::Color::Auto => !is_set("NO_COLOR"),
        };
        Self { has_colour }
    }

    /// One with or without colours.
    #[cfg(test)]
    pub const fn new(has_colour: bool) -> Self {
        Self { has_colour }
    }

    /// Whether there are colours.
    pub const fn has_colour(self) -> bool {
        self.has_colour
    }

    fn colour(self, colour: Color) -> Style {
        if self.has_colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// What something is called.
    pub fn label(self) -> Style {
        self.colour(Color::Cyan)
    }

    /// Something to look at first.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Something is wrong.
    pub fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Something happens.
    pub fn active(self) -> Style {
        self.colour(Color::Yellow)
    }

    /// It is as it should be.
    pub fn good(self) -> Style {
        self.colour(Color::Green)
    }

    /// Of less weight. Grey is unreadable on some terminals, so it is the terminal's own.
    pub fn quiet(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Heads of tables.
    pub fn head(self) -> Style {
        self.label()
            .add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    /// The row of the cursor.
    pub fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
