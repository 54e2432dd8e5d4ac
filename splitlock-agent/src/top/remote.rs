//! An agent behind a URL.

use std::{io::Read as _, time::Duration};

use anyhow::{Result, bail, ensure};
use ureq::{Agent, http::Uri};

use super::answer::{self, Answer, Detail};
use crate::subjects::{SubjectId, names::printable};

/// The most that is read of an answer, in bytes. A snapshot of 10,000 subjects has 10 MB.
const LARGEST: u64 = 256 << 20;

/// For a whole answer; the agent itself gives up making one after 10 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// For a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// An agent's API.
pub struct Remote {
    agent: Agent,
    /// Without a slash at the end.
    base: String,
}

impl Remote {
    /// The agent at `url`, which is not asked yet.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str) -> Result<Self> {
        let base = check(url)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Who asks for this address means it.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // The agent closes connections that rest; a new one costs it little.
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_global(Some(PATIENCE))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            base,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.base
    }

    /// What there is to show.
    ///
    /// # Errors
    /// Why there is no answer, or what is wrong with it.
    pub fn snapshot(&self) -> Result<Answer, String> {
        let path = "/api/v1/snapshot";
        match self.get(path)? {
            Some(body) => answer::read(&body),
            None => Err(format!(
                "{}{path}: HTTP 404; no splitlock-agent is there",
                self.base
            )),
        }
    }

    /// One subject in full; `None` where the agent has no more of it.
    ///
    /// # Errors
    /// As above.
    pub fn detail(&self, key: SubjectId) -> Result<Option<Detail>, String> {
        match self.get(&format!("/api/v1/subjects/{}", key.label()))? {
            Some(body) => answer::read(&body).map(Some),
            None => Ok(None),
        }
    }

    /// The body of a path; `None` for 404.
    fn get(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let url = format!("{}{path}", self.base);
        // Messages may quote the other side.
        let say = |error: &dyn std::fmt::Display| {
            format!("{url}: {}", printable(error.to_string().as_bytes()))
        };
        let response = self.agent.get(&url).call().map_err(|error| match error {
            ureq::Error::Io(error) => say(&error),
            other => say(&other),
        })?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            503 => return Err(format!("{url}: HTTP 503; the agent is overburdened")),
            other => return Err(format!("{url}: HTTP {other} instead of 200")),
        }
        let mut body = vec![];
        response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader()
            .take(LARGEST + 1)
            .read_to_end(&mut body)
            .map_err(|error| say(&error))?;
        if body.len() as u64 > LARGEST {
            return Err(format!(
                "{url}: the answer has more than {} MiB",
                LARGEST >> 20
            ));
        }
        Ok(Some(body))
    }
}

/// The URL to put paths behind.
fn check(url: &str) -> Result<String> {
    let shown = printable(url.as_bytes());
    let example = "such as http://127.0.0.1:9839";
    ensure!(
        !url.starts_with("https://"),
        "--url {shown}: the agent speaks http, not https; reach a far one through a tunnel (ssh -L)"
    );
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("--url {shown}: begins with http://, {example}");
    };
    let uri: Uri = match url.parse() {
        Ok(uri) => uri,
        Err(error) => bail!("--url {shown}: {error}; a URL is {example}"),
    };
    ensure!(
        uri.host().is_some_and(|host| !host.is_empty()),
        "--url {shown}: there is no host in it; a URL is {example}"
    );
    ensure!(
        uri.query().is_none() && !rest.contains('#'),
        "--url {shown}: it has no ? and no #, {example}"
    );
    // `http` takes `host:` and `host:99999` for a host without a port.
    let authority = rest.split('/').next().unwrap_or_default();
    ensure!(
        !authority.contains('@'),
        "--url {shown}: the agent knows no users, {example}"
    );
    let after = authority.rsplit(']').next().unwrap_or_default();
    ensure!(
        !after.contains(':') || uri.port_u16().is_some(),
        "--url {shown}: the port is a number up to 65535, {example}"
    );
    let path = uri.path().trim_end_matches('/');
    ensure!(
        !path.starts_with("/api/") && path != "/metrics",
        "--url {shown}: only what comes before the path, {example}"
    );
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_taken() {
        for (url, base) in [
            ("http://127.0.0.1:9839", "http://127.0.0.1:9839"),
            ("http://hv1:9839/", "http://hv1:9839"),
            ("http://[::1]:9839", "http://[::1]:9839"),
            ("http://[::1]", "http://[::1]"),
            ("http://proxy/hv1/splitlock/", "http://proxy/hv1/splitlock"),
        ] {
            assert_eq!(check(url).unwrap(), base);
        }
    }

    #[test]
    fn urls_that_are_refused_with_a_reason() {
        for (url, reason) in [
            ("https://hv1:9839", "not https"),
            ("hv1:9839", "begins with http://"),
            ("", "begins with http://"),
            ("ftp://hv1", "begins with http://"),
            ("http://", "--url http://"),
            ("http://hv1:99999", "--url http://hv1:99999"),
            ("http://hv1:", "port"),
            ("http://hv1 x", "--url http://hv1 x"),
            ("http://hv1/?a=b", "no ?"),
            ("http://me:secret@hv1", "no users"),
            ("http://hv1:9839/metrics", "before the path"),
            ("http://hv1:9839/api/v1/snapshot", "before the path"),
            ("http://\u{1b}[2J", "\\x1b"),
        ] {
            let error = check(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains('\u{1b}'));
        }
    }

    #[test]
    fn fuzz_url() {
        bolero::check!(name = "url").for_each(|url: &[u8]| {
            let url = String::from_utf8_lossy(url);
            match check(&url) {
                // What is taken is one line of ASCII with a host, and stays what it is.
                Ok(base) => {
                    assert!(
                        base.starts_with("http://") && !base.ends_with('/'),
                        "{base:?}"
                    );
                    let path: Uri = format!("{base}/api/v1/snapshot").parse().unwrap();
                    assert!(path.host().is_some_and(|host| !host.is_empty()));
                    assert_eq!(check(&base).unwrap(), base);
                }
                Err(error) => {
                    let error = error.to_string();
                    assert_eq!(error, printable(error.as_bytes()));
                }
            }
        });
    }
}
