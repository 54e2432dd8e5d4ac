//! The page for a person: one document that asks for the snapshot by itself, and shows it live.
//!
//! It is plain HTML, CSS and JavaScript, joined here; a browser needs nothing from elsewhere, and its
//! policy lets it take nothing from there.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

const DOCUMENT: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// In the order of their use; together they are one module, so that names are shared and none is
/// global.
const SCRIPTS: [&str; 13] = [
    include_str!("elements.js"),
    include_str!("format.js"),
    include_str!("history.js"),
    include_str!("sparkline.js"),
    include_str!("theme.js"),
    include_str!("poll.js"),
    include_str!("host.js"),
    include_str!("subject_table.js"),
    include_str!("columns.js"),
    include_str!("detail.js"),
    include_str!("events.js"),
    include_str!("agent.js"),
    include_str!("main.js"),
];

/// The page, as it is served.
#[derive(Clone, Debug)]
pub struct Page {
    /// The document.
    pub html: Bytes,
    /// Its `Content-Security-Policy`.
    pub policy: String,
}

impl Page {
    /// With a link to the metrics, which are at `telemetry_path`.
    pub fn new(telemetry_path: &str) -> Self {
        let script = SCRIPTS.concat();
        // The icon is a `data:` URL. All else that the page needs is in it or from the agent; what
        // a tenant's name might want to add has no hash.
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(&script),
            hash(STYLE),
        );
        let html = DOCUMENT
            .replace("{{metrics}}", &escaped(telemetry_path))
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{style}}", STYLE)
            .replace("{{script}}", &script);
        Self {
            html: html.into(),
            policy,
        }
    }
}

/// A source of a policy: what has this hash may run.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{detection::evidence::Source, probes::meaning::Counts};
    use splitlock_common::{Loss, Mode};

    /// What is between two marks, the last of which comes after.
    fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
        let (_, rest) = text.split_once(begin).unwrap();
        rest.split_once(end).unwrap().0
    }

    #[test]
    fn the_policy_admits_the_script_and_the_style_as_they_are_served() {
        let Page { html, policy } = Page::new("/metrics");
        let html = std::str::from_utf8(&html).unwrap();
        for (begin, end, directive) in [
            ("<script type=\"module\">", "</script>", "script-src"),
            ("<style>", "</style>", "style-src"),
        ] {
            assert_eq!(html.matches(begin).count(), 1, "{begin}");
            assert_eq!(html.matches(end).count(), 1, "{end}");
            let source = format!("{directive} '{}';", hash(between(html, begin, end)));
            assert!(policy.contains(&source), "{source}: {policy}");
        }
        assert!(policy.starts_with("default-src 'none';"));
        assert!(!policy.contains("unsafe"));
        assert!(!html.contains("{{"), "a mark is left");
    }

    #[test]
    fn a_path_cannot_be_markup() {
        let html = Page::new("/\"><b>&").html;
        let html = std::str::from_utf8(&html).unwrap();
        assert!(html.contains("href=\"/&quot;&gt;&lt;b&gt;&amp;\""));
        assert!(!html.contains("<b>"));
    }

    #[test]
    fn no_text_is_ever_taken_as_markup() {
        let script = SCRIPTS.concat();
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
        ] {
            assert!(!script.contains(way), "{way}");
        }
    }

    #[test]
    fn every_name_has_words() {
        let script = SCRIPTS.concat();
        let losses = Loss::ALL.iter().map(|loss| loss.name());
        let modes = Mode::ALL.iter().map(|mode| mode.name());
        let sources = Source::ALL.iter().map(|source| source.name());
        let counts = [
            Counts::EveryTrap,
            Counts::LowerBound,
            Counts::FirstPerThread,
            Counts::Nothing,
        ];
        let counts = counts.iter().map(|counts| counts.name());
        for name in losses.chain(modes).chain(sources).chain(counts) {
            assert!(script.contains(&format!("\n  {name}: \"")), "{name}");
        }
    }
}
