//! Where Debian's packages come from: the mirror that this machine's apt uses, and
//! the suites that kernels are taken from.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// Debian's releases, oldest first; of one, `-security` and `-backports` are suites too.
const RELEASES: [&str; 3] = ["bullseye", "bookworm", "trixie"];
/// Suites without a release yet: the newest kernels.
const UNRELEASED: [&str; 1] = ["sid"];
/// Where the package debian-archive-keyring puts the keys; on Ubuntu too.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An entry of apt's sources, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// A mirror of Debian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Of the releases and backports.
    pub main: String,
    /// Of the security suites, where one is known.
    pub security: Option<String>,
    /// The file of the archive's keys.
    pub keyring: String,
}

impl Mirror {
    /// The mirror of this machine's apt.
    pub fn of_this_machine() -> Result<Self> {
        let mut sources = Vec::new();
        let etc = Path::new("/etc/apt");
        read(&etc.join("sources.list"), &mut sources);
        let parts = etc.join("sources.list.d");
        for entry in fs::read_dir(&parts).into_iter().flatten().flatten() {
            read(&entry.path(), &mut sources);
        }
        Self::among(&sources).context(
            "apt's configuration (/etc/apt/sources.list, /etc/apt/sources.list.d) names no mirror \
             of Debian; name one: --mirror http://MIRROR/debian (the package debian-archive-keyring \
             has to be there)",
        )
    }

    /// A mirror that a person named; security suites come from its sibling, if it has one.
    pub fn named(main: &str) -> Self {
        let main = main.trim_end_matches('/');
        Self {
            main: main.to_owned(),
            security: main
                .strip_suffix("/debian")
                .map(|host| format!("{host}/debian-security")),
            keyring: KEYRING.to_owned(),
        }
    }

    fn among(sources: &[Source]) -> Option<Self> {
        let of_debian = |source: &&Source, suffix: &str| {
            source.components.iter().any(|name| name == "main")
                && source.suites.iter().any(|suite| {
                    RELEASES
                        .iter()
                        .chain(&UNRELEASED)
                        .any(|release| *suite == format!("{release}{suffix}"))
                })
        };
        let mut main: Vec<&Source> = sources
            .iter()
            .filter(|source| of_debian(source, ""))
            .collect();
        // Other archives call their suites after Debian's releases as well.
        main.sort_by_key(|source| !source.uri.trim_end_matches('/').ends_with("/debian"));
        let main = main.first()?;
        let security = sources
            .iter()
            .find(|source| of_debian(source, "-security"))
            .map(|source| source.uri.clone());
        Some(Self {
            main: main.uri.clone(),
            security,
            keyring: main.signed_by.clone().unwrap_or_else(|| KEYRING.to_owned()),
        })
    }

    /// The sources list of all suites.
    pub fn sources_list(&self) -> String {
        let Self {
            main,
            security,
            keyring,
        } = self;
        let mut list = String::new();
        let mut add = |uri: &str, suite: &str| {
            list += &format!("deb [signed-by={keyring}] {uri} {suite} main\n");
        };
        for release in RELEASES {
            add(main, release);
            if let Some(security) = security {
                add(security, &format!("{release}-security"));
            }
            // Bullseye's backports ended with its support.
            if release != RELEASES[0] {
                add(main, &format!("{release}-backports"));
            }
        }
        for suite in UNRELEASED {
            add(main, suite);
        }
        list
    }
}

/// Adds a file's sources. One that is not there or not readable names none.
fn read(file: &Path, sources: &mut Vec<Source>) {
    let Ok(text) = fs::read_to_string(file) else {
        return;
    };
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("list") => sources.extend(parse_lines(&text)),
        Some("sources") => sources.extend(parse_stanzas(&text)),
        _ => {}
    }
}

/// The format of one line a source, sources.list(5).
fn parse_lines(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="))
        .map(str::to_owned);
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

/// The deb822 format, one stanza a source.
fn parse_stanzas(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .filter_map(parse_stanza)
        .collect()
}

fn parse_stanza(lines: &[&str]) -> Option<Source> {
    let words = |field: &str| -> Vec<String> {
        lines
            .iter()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(field))
            .map(|(_, value)| value.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let enabled = words("Enabled").first().is_none_or(|value| value != "no");
    (enabled && words("Types").iter().any(|kind| kind == "deb")).then_some(())?;
    Some(Source {
        uri: words("URIs").into_iter().next()?,
        suites: words("Suites"),
        components: words("Components"),
        // A key in the stanza itself has no file.
        signed_by: words("Signed-By")
            .into_iter()
            .next()
            .filter(|file| file.starts_with('/')),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\n# a comment: here\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /keys/debian.gpg\n\n\
        Types: deb deb-src\nURIs: http://mirror.example/debian-security/\nSuites: bookworm-security\n\
        Components: main contrib\n\n\
        Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n";

    #[test]
    fn finds_the_mirror_in_stanzas() {
        let mirror = Mirror::among(&parse_stanzas(STANZAS)).unwrap();
        assert_eq!(mirror.main, "http://mirror.example/debian");
        assert_eq!(
            mirror.security.as_deref(),
            Some("http://mirror.example/debian-security/")
        );
        assert_eq!(mirror.keyring, "/keys/debian.gpg");
    }

    #[test]
    fn finds_the_mirror_in_lines() {
        let lines = "# deb http://off.example/debian trixie main\n\
            deb [arch=amd64 signed-by=/keys/p.gpg] http://other.example/prod bookworm main\n\
            deb http://mirror.example/debian bookworm main contrib\n\
            deb-src http://mirror.example/debian bookworm main\n";
        let mirror = Mirror::among(&parse_lines(lines)).unwrap();
        assert_eq!(mirror.main, "http://mirror.example/debian");
        assert_eq!(mirror.security, None);
        assert_eq!(mirror.keyring, KEYRING);
    }

    #[test]
    fn another_distribution_has_no_mirror_of_debian() {
        let lines = "deb http://mirror.example/ubuntu noble main universe\n\
            deb http://other.example/docker bookworm stable\n";
        assert_eq!(Mirror::among(&parse_lines(lines)), None);
    }

    #[test]
    fn the_list_has_the_security_suites_only_of_a_mirror_that_is_known() {
        let list = Mirror::named("http://mirror.example/debian/").sources_list();
        assert!(list.contains("http://mirror.example/debian trixie-backports main\n"));
        assert!(list.contains("http://mirror.example/debian-security bullseye-security main\n"));
        assert!(!list.contains("bullseye-backports"));
        let list = Mirror::named("http://mirror.example/d").sources_list();
        assert!(!list.contains("-security"));
    }
}
