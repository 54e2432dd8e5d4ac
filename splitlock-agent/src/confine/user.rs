//! The account that the agent becomes.

use std::fs;

use rustix::fs::{Gid, Uid};

/// The account that the package makes.
const ACCOUNT: &str = "splitlock-agent";
/// Where there is none: the last of those that systemd gives to services for their time (61184 to
/// 65519, its UIDS-GIDS.md), of which no file is left on a disk.
const NOBODYS: u32 = 65_519;

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl User {
    /// The user of this name or number; without one, the package's account or a number that is nobody's.
    ///
    /// # Errors
    /// No such account, or root's.
    pub fn find(wanted: Option<&str>) -> Result<Self, String> {
        // A static binary has no other source of names than the file.
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::among(&accounts, wanted)
    }

    fn among(accounts: &str, wanted: Option<&str>) -> Result<Self, String> {
        let found = match wanted {
            None => named(accounts, ACCOUNT).unwrap_or(Self {
                uid: NOBODYS,
                gid: NOBODYS,
            }),
            Some(wanted) => match wanted.parse() {
                Ok(uid) => numbered(accounts, uid).unwrap_or(Self { uid, gid: uid }),
                Err(_) => named(accounts, wanted).ok_or_else(|| {
                    format!("--privileges.user {wanted}: no such account in /etc/passwd")
                })?,
            },
        };
        if found.uid == 0 || found.gid == 0 {
            return Err(format!(
                "--privileges.user {}: that is root's; --privileges=keep says so openly",
                wanted.unwrap_or(ACCOUNT)
            ));
        }
        if found.uid == u32::MAX || found.gid == u32::MAX {
            return Err("--privileges.user: 4294967295 is no user".to_owned());
        }
        Ok(found)
    }

    /// As system calls take it.
    pub fn ids(self) -> (Uid, Gid) {
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
    }
}

fn named(accounts: &str, name: &str) -> Option<User> {
    accounts
        .lines()
        .filter_map(account)
        .find_map(|(of, user)| (of == name).then_some(user))
}

fn numbered(accounts: &str, uid: u32) -> Option<User> {
    accounts
        .lines()
        .filter_map(account)
        .find_map(|(_, user)| (user.uid == uid).then_some(user))
}

/// `NAME:PASSWORD:UID:GID:…`, passwd(5).
fn account(line: &str) -> Option<(&str, User)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((name, User { uid, gid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/bash\n\
        toor:x:0:7::/:/bin/sh\n\
        odd line\n\
        web:x:33:34:www:/var/www:/usr/sbin/nologin\n";

    #[test]
    fn by_name_by_number_and_by_default() {
        let among = |wanted| User::among(ACCOUNTS, wanted);
        let of = |uid, gid| Ok(User { uid, gid });
        assert_eq!(among(Some("web")), of(33, 34));
        assert_eq!(among(Some("33")), of(33, 34));
        assert_eq!(among(Some("4711")), of(4711, 4711));
        assert_eq!(among(None), of(NOBODYS, NOBODYS));
        let own = format!("{ACCOUNTS}{ACCOUNT}:x:998:997::/:/bin/false\n");
        assert_eq!(User::among(&own, None), of(998, 997));
    }

    #[test]
    fn root_is_refused_under_any_name() {
        for wanted in [
            "root",
            "0",
            "toor",
            "nobody-of-this-name",
            "4294967295",
            "-1",
        ] {
            assert!(User::among(ACCOUNTS, Some(wanted)).is_err(), "{wanted}");
        }
    }
}
