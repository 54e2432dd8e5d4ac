//! The kernels that a mirror's lists name, and choosing among them.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
};

/// The first two numbers of a kernel's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series(pub u32, pub u32);

impl Display for Series {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(major, minor) = self;
        write!(f, "{major}.{minor}")
    }
}

/// A kernel package that apt's lists name. Its file may be gone from the mirror all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its series.
    pub series: Series,
    /// As `6.12.117+deb13-cloud-amd64`.
    pub release: String,
    /// Its name.
    pub package: String,
    /// Whether the lists have its headers, which the trap module needs.
    pub headers: bool,
}

/// The kernels among these packages, best first: those with headers, then by version; of one
/// release the signed package before the unsigned one.
pub fn candidates(packages: &[String]) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = packages
        .iter()
        .filter_map(|package| {
            let release = package.strip_prefix("linux-image-")?;
            let release = release.strip_suffix("-unsigned").unwrap_or(release);
            // Packages for a whole series, as linux-image-6.12-cloud-amd64, are empty.
            let [major, minor, _, ..] = numbers(release)[..] else {
                return None;
            };
            Some(Candidate {
                series: Series(major, minor),
                release: release.to_owned(),
                package: package.clone(),
                headers: packages.contains(&format!("linux-headers-{release}")),
            })
        })
        .collect();
    candidates.sort_by_key(|candidate| {
        (
            !candidate.headers,
            Reverse(numbers(&candidate.release)),
            candidate.package.len(),
        )
    });
    candidates
}

/// The numbers of a release without those of the flavour: 6, 12, 117, 13 of
/// `6.12.117+deb13-cloud-amd64`. Greater numbers are newer.
pub fn numbers(release: &str) -> Vec<u32> {
    let release = release.split("-cloud").next().unwrap_or_default();
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// The candidates of a series, best first.
pub fn of(candidates: &[Candidate], wanted: Series) -> Vec<&Candidate> {
    candidates
        .iter()
        .filter(|candidate| candidate.series == wanted)
        .collect()
}

/// The candidates that a word names: a series or a whole release.
pub fn named<'a>(candidates: &'a [Candidate], word: &str) -> Vec<&'a Candidate> {
    candidates
        .iter()
        .filter(|candidate| {
            let Candidate {
                release, package, ..
            } = candidate;
            candidate.series.to_string() == word
                || release == word
                || package == word
                || release.strip_suffix("-cloud-amd64") == Some(word)
        })
        .collect()
}

/// All series, oldest first.
pub fn all_series(candidates: &[Candidate]) -> BTreeSet<Series> {
    candidates
        .iter()
        .map(|candidate| candidate.series)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<Candidate> {
        candidates(
            &[
                "linux-image-6.12.117+deb13-cloud-amd64",
                "linux-image-7.2.13+deb14-cloud-amd64",
                "linux-headers-6.1.0-55-cloud-amd64",
                "linux-image-6.1.0-56-cloud-amd64-unsigned",
                "linux-image-6.1.0-56-cloud-amd64",
                "linux-image-6.1.0-55-cloud-amd64",
                "linux-image-6.1.0-0.deb11.52-cloud-amd64",
                "linux-image-7.3.4+deb13-cloud-amd64",
                "linux-image-6.12-cloud-amd64",
            ]
            .map(str::to_owned),
        )
    }

    #[test]
    fn packages_of_a_whole_series_and_headers_are_no_kernels() {
        assert_eq!(example().len(), 7);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("6.12.117+deb13-cloud-amd64") > numbers("6.12.95+deb13-cloud-amd64"));
        assert!(numbers("6.1.0-56-cloud-amd64") > numbers("6.1.0-0.deb11.52-cloud-amd64"));
        assert!(numbers("6.12.115+deb13.1-cloud-amd64") > numbers("6.12.115+deb13-cloud-amd64"));
    }

    #[test]
    fn kernels_with_headers_come_first_and_then_the_newest() {
        let candidates = example();
        let packages: Vec<&str> = of(&candidates, Series(6, 1))
            .iter()
            .map(|candidate| candidate.package.as_str())
            .collect();
        assert_eq!(
            packages,
            [
                "linux-image-6.1.0-55-cloud-amd64",
                "linux-image-6.1.0-56-cloud-amd64",
                "linux-image-6.1.0-56-cloud-amd64-unsigned",
                "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            ]
        );
    }

    #[test]
    fn words_name_a_series_or_one_kernel() {
        let candidates = example();
        assert_eq!(named(&candidates, "6.1").len(), 4);
        assert_eq!(named(&candidates, "6.12.117+deb13").len(), 1);
        assert_eq!(named(&candidates, "7.3.4+deb13-cloud-amd64").len(), 1);
        assert!(named(&candidates, "6").is_empty());
    }

    #[test]
    fn series_are_in_order() {
        let all: Vec<String> = all_series(&example())
            .iter()
            .map(Series::to_string)
            .collect();
        assert_eq!(all, ["6.1", "6.12", "7.2", "7.3"]);
    }
}
