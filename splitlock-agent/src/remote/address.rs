//! What `--url` may be.

use std::{fmt, path::PathBuf};

use anyhow::{Result, bail, ensure};
use ureq::http::Uri;

use crate::subjects::names::printable;

const EXAMPLE: &str = "such as http://127.0.0.1:9839";

/// Where an agent is.
#[derive(Debug, PartialEq, Eq)]
pub enum Address {
    /// To put paths behind.
    Http(String),
    /// The same.
    Https(String),
    /// A socket's file.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(base) | Self::Https(base) => formatter.write_str(base),
            Self::Unix(path) => {
                use std::os::unix::ffi::OsStrExt as _;
                write!(formatter, "unix:{}", printable(path.as_os_str().as_bytes()))
            }
        }
    }
}

impl Address {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(url: &str) -> Result<Self> {
        let shown = printable(url.as_bytes());
        if let Some(path) = url.strip_prefix("unix:") {
            // As one would write it for a host that is this one.
            let path = path.strip_prefix("//").unwrap_or(path);
            ensure!(
                path.starts_with('/'),
                "--url {shown}: the path of a socket begins with /, such as unix:/run/splitlock-agent.sock"
            );
            return Ok(Self::Unix(path.into()));
        }
        let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => bail!("--url {shown}: begins with http://, https:// or unix:, {EXAMPLE}"),
        };
        let uri: Uri = match url.parse() {
            Ok(uri) => uri,
            Err(error) => bail!("--url {shown}: {error}; a URL is {EXAMPLE}"),
        };
        ensure!(
            uri.host().is_some_and(|host| !host.is_empty()),
            "--url {shown}: there is no host in it; a URL is {EXAMPLE}"
        );
        ensure!(
            uri.query().is_none() && !rest.contains('#'),
            "--url {shown}: it has no ? and no #, {EXAMPLE}"
        );
        // `http` takes `host:` and `host:99999` for a host without a port.
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            // The password is not to be shown once more.
            bail!(
                "--url: there is no user in it, {EXAMPLE}: everybody can read a command line; name a \
                 file by --url.credentials-file"
            );
        }
        let after = authority.rsplit(']').next().unwrap_or_default();
        ensure!(
            !after.contains(':') || uri.port_u16().is_some(),
            "--url {shown}: the port is a number up to 65535, {EXAMPLE}"
        );
        let path = uri.path().trim_end_matches('/');
        ensure!(
            !path.starts_with("/api/") && path != "/metrics",
            "--url {shown}: only what comes before the path, {EXAMPLE}"
        );
        let base = url.trim_end_matches('/').to_owned();
        Ok(if is_https {
            Self::Https(base)
        } else {
            Self::Http(base)
        })
    }
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
            ("https://hv1:9839/", "https://hv1:9839"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(Address::of(url).unwrap().to_string(), base);
        }
        assert!(matches!(Address::of("https://h"), Ok(Address::Https(_))));
    }

    #[test]
    fn urls_that_are_refused_with_a_reason() {
        for (url, reason) in [
            ("hv1:9839", "begins with http://"),
            ("", "begins with http://"),
            ("ftp://hv1", "begins with http://"),
            ("http://", "--url http://"),
            ("http://hv1:99999", "--url http://hv1:99999"),
            ("https://hv1:99999", "--url https://hv1:99999"),
            ("http://hv1:", "port"),
            ("http://hv1 x", "--url http://hv1 x"),
            ("http://hv1/?a=b", "no ?"),
            ("http://me:secret@hv1", "no user"),
            ("http://hv1:9839/metrics", "before the path"),
            ("http://hv1:9839/api/v1/snapshot", "before the path"),
            ("http://\u{1b}[2J", "\\x1b"),
            ("unix:run/a.sock", "begins with /"),
            ("unix:", "begins with /"),
        ] {
            let error = Address::of(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains('\u{1b}') && !error.contains("secret"));
        }
    }

    #[test]
    fn fuzz_url() {
        bolero::check!(name = "url").for_each(|url: &[u8]| {
            let url = String::from_utf8_lossy(url);
            match Address::of(&url) {
                // What is taken is one line of ASCII with a host, and stays what it is.
                Ok(Address::Http(base) | Address::Https(base)) => {
                    assert!(base.starts_with("http") && !base.ends_with('/'), "{base:?}");
                    let path: Uri = format!("{base}/api/v1/snapshot").parse().unwrap();
                    assert!(path.host().is_some_and(|host| !host.is_empty()));
                    assert_eq!(Address::of(&base).unwrap().to_string(), base);
                }
                Ok(unix) => {
                    let name = unix.to_string();
                    assert_eq!(name, printable(name.as_bytes()));
                }
                Err(error) => {
                    let error = error.to_string();
                    assert_eq!(error, printable(error.as_bytes()));
                }
            }
        });
    }
}
