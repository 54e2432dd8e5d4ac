//! Options of a command line in the manner of clap, argh and getopt_long.

/// The last value of an option: `--name VALUE` or `--name=VALUE`, for a short one `-n VALUE`. What
/// follows a bare `--` is the program's own no more.
///
/// Which options take a value is not known here: one that is given as another's value
/// (`--cmdline --id`) is taken for itself.
pub fn last_value<'a>(arguments: &[&'a [u8]], names: &[&str]) -> Option<&'a [u8]> {
    values(arguments, names).last()
}

/// All its values, in their order.
pub fn values<'a>(
    arguments: &[&'a [u8]],
    names: &[&str],
) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    let end = arguments
        .iter()
        .position(|argument| *argument == b"--")
        .unwrap_or(arguments.len());
    let own = &arguments[..end];
    let mut values = Vec::new();
    let mut at = 0;
    while let Some(argument) = own.get(at) {
        at += 1;
        for name in names {
            let Some(rest) = argument.strip_prefix(name.as_bytes()) else {
                continue;
            };
            match rest.split_first() {
                None => {
                    values.extend(own.get(at));
                    at += 1;
                }
                Some((b'=', value)) => values.push(value),
                Some(_) => continue,
            }
            break;
        }
    }
    values.into_iter()
}

/// The value of a key in `key=value,key=value`.
pub fn key<'a>(list: &'a [u8], key: &str) -> Option<&'a [u8]> {
    list.split(|byte| *byte == b',')
        .filter_map(|item| {
            item.strip_prefix(key.as_bytes())?
                .strip_prefix(b"=".as_slice())
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last<'a>(line: &'a str, names: &[&str]) -> Option<&'a str> {
        let arguments: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        last_value(&arguments, names).map(|value| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn forms() {
        assert_eq!(last("--id a", &["--id"]), Some("a"));
        assert_eq!(last("--id=a --id=b", &["--id"]), Some("b"));
        assert_eq!(last("--id=", &["--id"]), Some(""));
        assert_eq!(last("-n x", &["--name", "-n"]), Some("x"));
        assert_eq!(last("--idle 3 --id", &["--id"]), None);
        assert_eq!(last("--id a -- --id b", &["--id"]), Some("a"));
        assert_eq!(last("--id --id", &["--id"]), Some("--id"));
    }

    #[test]
    fn keys() {
        assert_eq!(key(b"path=/a,fd=3", "path"), Some(b"/a".as_slice()));
        assert_eq!(key(b"xpath=/a", "path"), None);
    }
}
