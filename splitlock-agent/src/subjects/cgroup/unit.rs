//! The systemd unit that a cgroup belongs to, by systemd's own rule.

/// Suffixes of units that can have processes, and of those that systemd would take for one.
const TYPES: [&[u8]; 11] = [
    b"service",
    b"scope",
    b"slice",
    b"socket",
    b"mount",
    b"swap",
    b"target",
    b"device",
    b"automount",
    b"timer",
    b"path",
];
/// `UNIT_NAME_MAX` with its NUL (systemd, src/basic/unit-name.h).
const NAME_MAX: usize = 256;

/// The unit as `systemctl` names it: the first component behind the slices (`cg_path_get_unit`,
/// systemd src/basic/cgroup-util.c, v245), and below `user@UID.service` the user's own unit
/// (`cg_path_get_user_unit`), written behind his manager's: a user may call his units like the host's,
/// and is not to be taken for them.
///
/// The user manager's own processes are in an `init.scope` there. It is called by its service, as
/// `init.scope` alone is the system's first process.
pub fn of_path(path: &[u8]) -> Option<Vec<u8>> {
    let (unit, rest) = behind_slices(path)?;
    if !is_user_manager(unit) {
        return Some(unit.to_vec());
    }
    match behind_slices(rest) {
        Some((user_unit, _)) if user_unit != b"init.scope" => {
            Some([unit, b"/", user_unit].concat())
        }
        _ => Some(unit.to_vec()),
    }
}

/// The first component that is no slice, if it is a unit, and what follows it.
fn behind_slices(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = path;
    loop {
        let start = rest.iter().position(|byte| *byte != b'/')?;
        rest = &rest[start..];
        let end = rest
            .iter()
            .position(|byte| *byte == b'/')
            .unwrap_or(rest.len());
        let unit = unescaped(&rest[..end]);
        rest = &rest[end..];
        if !is_unit(unit) {
            return None;
        }
        if !unit.ends_with(b".slice") {
            return Some((unit, rest));
        }
    }
}

/// Whether a component is `user@UID.service`.
pub fn is_user_manager(component: &[u8]) -> bool {
    component
        .strip_prefix(b"user@")
        .and_then(|rest| rest.strip_suffix(b".service"))
        .is_some_and(|uid| !uid.is_empty() && uid.iter().all(u8::is_ascii_digit))
}

/// `cg_unescape`: one underscore before names that the kernel could take for its own.
fn unescaped(component: &[u8]) -> &[u8] {
    component.strip_prefix(b"_").unwrap_or(component)
}

/// `unit_name_is_valid` for plain names and instances (systemd, src/basic/unit-name.c, v245).
fn is_unit(name: &[u8]) -> bool {
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else {
        return false;
    };
    let (prefix, suffix) = (&name[..dot], &name[dot + 1..]);
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(byte);
    name.len() < NAME_MAX
        && TYPES.contains(&suffix)
        && !prefix.is_empty()
        && prefix[0] != b'@'
        && prefix.iter().all(valid)
        // A template is no unit.
        && prefix.iter().position(|byte| *byte == b'@') != Some(prefix.len() - 1)
}

/// Undoes `\xNN` of `systemd-escape`, as in the names of machines' scopes.
pub fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match rest {
            [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                plain.push(high << 4 | low);
                rest = &rest[4..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(path: &str) -> Option<String> {
        of_path(path.as_bytes()).map(|unit| String::from_utf8(unit).unwrap())
    }

    /// Paths in the manner of systemd's src/test/test-cgroup-util.c.
    #[test]
    fn slices_are_skipped_and_the_first_unit_counts() {
        assert_eq!(
            unit("/system.slice/foobar.service/sdfdsaf").as_deref(),
            Some("foobar.service")
        );
        assert_eq!(
            unit("/system.slice/getty@tty5.service").as_deref(),
            Some("getty@tty5.service")
        );
        assert_eq!(
            unit("/getty@tty5.service/getty5").as_deref(),
            Some("getty@tty5.service")
        );
        assert_eq!(
            unit("/a.slice/a-b.slice/x.service").as_deref(),
            Some("x.service")
        );
        assert_eq!(unit("/init.scope").as_deref(), Some("init.scope"));
        assert_eq!(
            unit("/system.slice/_cpu.service").as_deref(),
            Some("cpu.service")
        );
        assert_eq!(
            unit("/machine.slice/machine-qemu\\x2d1\\x2dweb1.scope/libvirt/emulator").as_deref(),
            Some("machine-qemu\\x2d1\\x2dweb1.scope")
        );
        assert_eq!(unit("/system.slice").as_deref(), None);
        assert_eq!(unit("/").as_deref(), None);
        assert_eq!(unit("/docker/abc").as_deref(), None);
        assert_eq!(unit("/a.slice/getty@.service").as_deref(), None);
        assert_eq!(unit("/system.slice/a b.service").as_deref(), None);
        assert_eq!(unit("/.service").as_deref(), None);
    }

    #[test]
    fn a_users_unit_is_behind_his_manager() {
        let user = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(
            unit(&format!("{user}/app.slice/app-foo.service/x")).as_deref(),
            Some("user@1000.service/app-foo.service")
        );
        assert_eq!(
            unit(&format!("{user}/init.scope")).as_deref(),
            Some("user@1000.service")
        );
        assert_eq!(unit(user).as_deref(), Some("user@1000.service"));
        assert_eq!(
            unit("/user.slice/user-1000.slice/session-3.scope").as_deref(),
            Some("session-3.scope")
        );
        assert_eq!(
            unit("/system.slice/user@root.service/a.service").as_deref(),
            Some("user@root.service")
        );
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(b"qemu\\x2d1\\x2dweb"), b"qemu-1-web");
        assert_eq!(unescape(b"a\\x2"), b"a\\x2");
        assert_eq!(unescape(b"a\\xzz\\"), b"a\\xzz\\");
    }

    proptest! {
        #[test]
        fn any_path(path: Vec<u8>) {
            if let Some(unit) = of_path(&path) {
                prop_assert!(unit.len() < 2 * NAME_MAX);
                prop_assert!(unit.iter().all(u8::is_ascii_graphic));
            }
        }

        #[test]
        fn what_was_escaped_comes_back(name: Vec<u8>) {
            let mut escaped = Vec::new();
            for byte in &name {
                escaped.extend(format!("\\x{byte:02x}").into_bytes());
            }
            prop_assert_eq!(unescape(&escaped), name);
        }
    }
}
