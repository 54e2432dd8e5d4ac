//! Users, and what their passwords are checked against.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use anyhow::{Context as _, Result, ensure};

/// Costs of a hash, as powers of two. The least is bcrypt's own; at the greatest one check takes
/// about 5 s.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;

/// Nobody's salt and hash: what there is no user for is checked against these.
const NOBODY: &str = "I3nZgrKdpVVcXCTcwfC0Ku5b2rYfhVQqoc0Nmjv0GyGJ2Fqd7J1wC";

/// Nobody outside can tell which cost a name that is no user's has.
static CHOICE: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// All users.
#[derive(Default)]
pub struct Users {
    hashes: BTreeMap<String, String>,
    /// The cost of each.
    costs: Vec<u32>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.hashes.keys()).finish()
    }
}

/// What to check a password against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The hash.
    pub hash: String,
    /// Whether there is such a user.
    pub is_user: bool,
}

impl Users {
    /// Reads hashes by user.
    ///
    /// # Errors
    /// A name that no client can send, or a hash that is none.
    pub fn new(hashes: BTreeMap<String, String>) -> Result<Self> {
        let mut costs = vec![];
        for (name, hash) in &hashes {
            ensure!(
                !name.is_empty() && !name.contains(':') && !name.chars().any(char::is_control),
                "a user's name is not empty, and without colons and control characters"
            );
            let cost = hash
                .parse::<bcrypt::HashParts>()
                .ok()
                .map(|parts| parts.get_cost())
                .with_context(|| {
                    format!("the password of {name} is no bcrypt hash (htpasswd -nB makes them)")
                })?;
            ensure!(
                COSTS.contains(&cost),
                "the hash of {name} has a cost of {cost}: between {} and {} it is hard enough to \
                 guess and can be checked",
                COSTS.start(),
                COSTS.end()
            );
            costs.push(cost);
        }
        Ok(Self { hashes, costs })
    }

    /// Whether there are none, so that nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// What to check a user's password against. For a name that is no user's this takes as long as for
    /// one: its cost is that of some user, always of the same for the same name.
    pub fn check(&self, name: &str) -> Check {
        if let Some(hash) = self.hashes.get(name) {
            return Check {
                hash: hash.clone(),
                is_user: true,
            };
        }
        let chosen = CHOICE.hash_one(name) as usize % self.costs.len().max(1);
        let cost = self.costs.get(chosen).copied().unwrap_or(*COSTS.start());
        Check {
            hash: format!("$2b${cost:02}${NOBODY}"),
            is_user: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(costs: &[(&str, u32)]) -> Result<Users> {
        let hash =
            |(name, cost): &(&str, u32)| ((*name).to_owned(), format!("$2y${cost:02}${NOBODY}"));
        Users::new(costs.iter().map(hash).collect())
    }

    #[test]
    fn a_user_is_checked_against_its_hash_and_nobody_against_one_as_costly() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = Users::new(BTreeMap::from([("scraper".to_owned(), hash.clone())])).unwrap();
        let scraper = users.check("scraper");
        assert!(scraper.is_user && scraper.hash == hash);
        assert!(bcrypt::verify("secret", &scraper.hash).unwrap());
        let nobody = users.check("nobody");
        assert!(!nobody.is_user);
        // It is a hash, and of the same cost.
        let parts: bcrypt::HashParts = nobody.hash.parse().unwrap();
        assert_eq!(parts.get_cost(), 4);
        assert!(!bcrypt::verify("secret", &nobody.hash).unwrap());
    }

    #[test]
    fn names_that_are_no_users_have_costs_of_users() {
        let users = users(&[("a", 5), ("b", 9)]).unwrap();
        let cost = |name: &str| {
            let check = users.check(name);
            let parts: bcrypt::HashParts = check.hash.parse().unwrap();
            parts.get_cost()
        };
        let costs: std::collections::BTreeSet<u32> =
            (0..100).map(|n| cost(&format!("nobody{n}"))).collect();
        assert_eq!(costs, [5, 9].into());
        assert_eq!(cost("nobody7"), cost("nobody7"));
    }

    #[test]
    fn what_no_client_could_send_and_what_is_no_hash_is_refused() {
        assert!(users(&[("scraper", 10)]).is_ok());
        for wrong in [
            ("", 10),
            ("a:b", 10),
            ("a\nb", 10),
            ("a", 3),
            ("a", 17),
            ("a", 31),
        ] {
            assert!(users(&[wrong]).is_err(), "{wrong:?}");
        }
        for hash in ["", "secret", "$2y$10$short", "$1$10$I3nZgrKdpVVcXCTcwfC0Ku"] {
            let error = Users::new(BTreeMap::from([("me".to_owned(), hash.to_owned())]))
                .unwrap_err()
                .to_string();
            assert!(error.contains("me"), "{error}");
            assert!(hash.is_empty() || !error.contains(hash), "{error}");
        }
    }
}
