//! The server's own series: its connections, whom it refused, and its configuration.

use super::text::Text;
use crate::export::metrics;

/// What is served, and to whom not.
#[derive(Clone, Debug)]
pub struct Served {
    /// Connections now.
    pub connections: usize,
    /// The most that there can be.
    pub connections_limit: usize,
    /// What was refused, by cause.
    pub refused: Vec<(&'static str, u64)>,
    /// Readings of `--web.config.file` after the first, where there is one.
    pub config: Option<Reloads>,
}

/// Readings of a file.
#[derive(Clone, Copy, Debug)]
pub struct Reloads {
    /// Those that failed.
    pub failures: u64,
    /// Whether the last one did not.
    pub is_current: bool,
}

/// Writes them.
pub fn encode(served: &Served) -> Vec<u8> {
    let Served {
        connections,
        connections_limit,
        refused,
        config,
    } = served;
    let mut text = Text::default();
    text.family(&metrics::WEB_CONNECTIONS).add(&[], connections);
    text.family(&metrics::WEB_CONNECTIONS_LIMIT)
        .add(&[], connections_limit);
    let mut family = text.family(&metrics::WEB_REFUSED);
    for (cause, count) in refused {
        family.add(&[cause], count);
    }
    if let Some(Reloads {
        failures,
        is_current,
    }) = config
    {
        text.family(&metrics::WEB_CONFIG_FAILURES)
            .add(&[], failures);
        text.family(&metrics::WEB_CONFIG_CURRENT)
            .add(&[], u8::from(*is_current));
    }
    text.into_bytes()
}
