//! Lines for systemd's journal.

use std::{io, path::Path};

use libsystemd::logging::{Priority, journal_send};

use super::Line;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Whether there is a journal.
///
/// # Errors
/// There is none.
pub fn check() -> io::Result<()> {
    if Path::new(SOCKET).exists() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("{SOCKET} is not there: systemd's journal does not run here"),
    ))
}

/// Opens the socket by a first line; it is kept, as whoever has given up its rights can open none.
///
/// # Errors
/// The journal is not there.
pub fn open() -> io::Result<()> {
    check()?;
    let fields = [("SYSLOG_IDENTIFIER", "splitlock-agent")];
    journal_send(Priority::Info, "the event log begins", fields.into_iter())
        .map_err(io::Error::other)
}

/// Sends a line: a message in words, and a field `SPLITLOCK_…` for each value.
///
/// # Errors
/// The journal does not take it.
pub fn send(line: &Line) -> io::Result<()> {
    let priority = if line.trap.is_empty() {
        Priority::Info
    } else {
        Priority::Warning
    };
    let fields = fields(line)?;
    let message = line.message();
    let all = [("SYSLOG_IDENTIFIER".to_owned(), "splitlock-agent".to_owned())]
        .into_iter()
        .chain(fields);
    journal_send(priority, &message, all).map_err(io::Error::other)
}

/// The values that the JSON line has, by their names in upper case.
fn fields(line: &Line) -> io::Result<Vec<(String, String)>> {
    let serde_json::Value::Object(values) = serde_json::to_value(line)? else {
        return Ok(vec![]);
    };
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(values
        .into_iter()
        // The journal has its own.
        .filter(|(name, _)| name != "time")
        .map(|(name, value)| (format!("SPLITLOCK_{}", name.to_uppercase()), text(value)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_called_as_the_journal_wants_them() {
        let line = Line {
            event: "alignment_check",
            pid: 7,
            ..Line::default()
        };
        let fields = fields(&line).unwrap();
        assert!(fields.contains(&("SPLITLOCK_PID".to_owned(), "7".to_owned())));
        assert!(fields.contains(&("SPLITLOCK_EVENT".to_owned(), "alignment_check".to_owned())));
        let is_allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(fields.iter().all(|(name, _)| name.chars().all(is_allowed)));
    }
}
