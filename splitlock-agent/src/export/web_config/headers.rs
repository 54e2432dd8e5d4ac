//! Headers that the file adds to answers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, ensure};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Those that may be set, each with its values where not any will do: as the exporter-toolkit has them.
const SETTABLE: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// Reads them; a blank one is not sent.
pub fn read(headers: BTreeMap<String, String>) -> Result<HeaderMap> {
    let mut read = HeaderMap::new();
    for (name, value) in headers {
        let names = || SETTABLE.map(|(name, _)| name).join(", ");
        let (known, values) = SETTABLE
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(&name))
            .with_context(|| format!("{name} cannot be set, only {}", names()))?;
        if value.is_empty() {
            continue;
        }
        ensure!(
            values.is_empty() || values.contains(&value.as_str()),
            "{name} is one of {}",
            values.join(", ")
        );
        let value = HeaderValue::try_from(value)
            .map_err(|_| anyhow!("{name} has characters that no header may have"))?;
        read.insert(HeaderName::try_from(*known)?, value);
    }
    Ok(read)
}
