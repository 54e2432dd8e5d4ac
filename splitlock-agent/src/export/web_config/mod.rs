//! `--web.config.file`: TLS, users and headers, in the format of Prometheus's exporter-toolkit
//! (its `docs/web-configuration.md`).
//!
//! What is written there and cannot be done is an error that names it, so that nobody believes in a
//! protection that is not there.

mod file;
mod files;
mod headers;
mod live;
mod rate;
mod tls;
mod users;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use axum::http::HeaderMap;

use self::{file::File, files::Files};
pub use self::{live::Live, rate::Rate, tls::Tls, users::Users};

/// One reading of the file and of those that it names.
#[derive(Debug, Default)]
pub struct WebConfig {
    /// TLS; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// Who may ask; everybody where there are none.
    pub users: Users,
    /// For each answer.
    pub headers: HeaderMap,
    /// How many requests there may be; `None` for any number.
    pub rate: Option<Rate>,
}

impl WebConfig {
    /// Reads the file at `path`, whose folder relative names start from, and notes what was read.
    fn read(path: &Path, files: &mut Files) -> Result<Self> {
        let text = files.read(path)?;
        let text = String::from_utf8(text)
            .ok()
            .with_context(|| format!("{} is no UTF-8", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        Self::of(&text, folder, files).with_context(|| path.display().to_string())
    }

    fn of(text: &str, folder: &Path, files: &mut Files) -> Result<Self> {
        let File {
            tls_server_config,
            http_server_config,
            basic_auth_users,
            rate_limit,
        } = File::parse(text)?;
        ensure!(
            http_server_config.http2 != Some(true),
            "http_server_config: http2: true: HTTP/2 is not served; clients take HTTP/1.1 by themselves"
        );
        Ok(Self {
            tls: tls_server_config
                .map(|tls| Tls::new(tls, folder, files))
                .transpose()
                .context("tls_server_config")?,
            users: Users::new(basic_auth_users).context("basic_auth_users")?,
            headers: headers::read(http_server_config.headers)
                .context("http_server_config: headers")?,
            rate: rate_limit
                .map(|limit| Rate::new(&limit))
                .transpose()
                .context("rate_limit")?
                .flatten(),
        })
    }

    /// Whether a client has to show who it is.
    pub fn asks_who(&self) -> bool {
        !self.users.is_empty() || self.tls.as_ref().is_some_and(Tls::requires_certificate)
    }

    /// What this lets happen that another did not. A file that is read while it is being written may
    /// lack its last lines.
    fn laxer_than(&self, other: &Self) -> Option<&'static str> {
        match (&other.tls, &self.tls) {
            (Some(_), None) => return Some("it turns TLS off"),
            (Some(before), Some(now)) => {
                if let Some(what) = now.laxer_than(before) {
                    return Some(what);
                }
            }
            (None, _) => {}
        }
        (self.users.is_empty() && !other.users.is_empty()).then_some("it has no users any more")
    }
}

#[cfg(test)]
mod tests;
