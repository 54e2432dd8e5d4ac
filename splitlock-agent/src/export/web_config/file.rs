//! The file as it is written.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use serde::Deserialize;

/// All of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// TLS.
    pub tls_server_config: Option<TlsServerConfig>,
    /// HTTP.
    pub http_server_config: HttpServerConfig,
    /// Hashes of passwords by user.
    pub basic_auth_users: BTreeMap<String, String>,
    /// How many requests there may be.
    pub rate_limit: Option<RateLimit>,
}

/// TLS.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsServerConfig {
    pub cert: Option<String>,
    pub key: Option<String>,
    pub client_ca: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    pub client_ca_file: Option<String>,
    pub client_auth_type: Option<String>,
    pub client_allowed_sans: Option<Vec<String>>,
    pub min_version: Option<String>,
    pub max_version: Option<String>,
    pub cipher_suites: Vec<String>,
    pub prefer_server_cipher_suites: Option<bool>,
    pub curve_preferences: Vec<String>,
}

impl std::fmt::Debug for TlsServerConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // There may be a key in it.
        formatter.write_str("TlsServerConfig")
    }
}

/// HTTP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpServerConfig {
    pub http2: Option<bool>,
    pub headers: BTreeMap<String, String>,
}

/// A token bucket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    pub interval: String,
    #[serde(default)]
    pub burst: u32,
}

impl File {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong, and in which line, without words of the file's: they may be secret.
    pub fn parse(text: &str) -> Result<Self> {
        let options = serde_saphyr::options! {
            with_snippet: false,
        };
        // Nothing in the file, or comments alone, is a file without any wish.
        let read: Option<Self> = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| anyhow!("{error}"))?;
        Ok(read.unwrap_or_default())
    }
}
