//! Names that processes give themselves, made fit for labels and logs.

use std::fmt::Write as _;

/// Bytes of a VM's, a unit's or a container's name: as many as a file's may have, and libvirt keeps
/// a domain's definition in a file of its name.
pub const NAME_LIMIT: usize = 255;
/// Bytes of a path: of an executable, of a cgroup.
pub const PATH_LIMIT: usize = 1024;

/// A name as text, unbounded: what is no UTF-8 and all characters that could break a line, hide, or
/// turn the reading direction of what follows become `\xNN`.
pub fn printable(name: &[u8]) -> String {
    printable_within(name, usize::MAX)
}

/// The beginning of a name as text of at most `limit` bytes. Cut between characters, and not inside
/// an escape.
pub fn printable_within(name: &[u8], limit: usize) -> String {
    let mut text = String::with_capacity(name.len().min(limit));
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let bytes = character.encode_utf8(&mut buffer);
            let fits = if is_plain(character) {
                push(&mut text, limit, bytes)
            } else {
                escape(&mut text, limit, bytes.as_bytes())
            };
            if !fits {
                return text;
            }
        }
        if !escape(&mut text, limit, chunk.invalid()) {
            return text;
        }
    }
    text
}

/// Whether a character shows itself and changes nothing around it. Unicode 16, UAX #9 (controls of
/// direction), and the invisible ones that make two names look the same; the joiners U+200C and
/// U+200D belong to writing systems.
fn is_plain(character: char) -> bool {
    let escaped = character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        );
    !escaped
}

fn escape(text: &mut String, limit: usize, bytes: &[u8]) -> bool {
    let mut escaped = String::with_capacity(4 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(escaped, "\\x{byte:02x}");
    }
    push(text, limit, &escaped)
}

/// Whether it fitted.
fn push(text: &mut String, limit: usize, part: &str) -> bool {
    let fits = part.len() <= limit - text.len();
    if fits {
        text.push_str(part);
    }
    fits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_readable_stays() {
        assert_eq!(printable(b"CPU 0/KVM"), "CPU 0/KVM");
        assert_eq!(printable("größe".as_bytes()), "größe");
        assert_eq!(printable(b"a\"b\\c{}"), "a\"b\\c{}");
        assert_eq!(printable(b""), "");
    }

    #[test]
    fn what_could_break_a_line_is_escaped() {
        assert_eq!(printable(b"a\nb\x1b[2J\x7f"), "a\\x0ab\\x1b[2J\\x7f");
        assert_eq!(printable(b"\xff\xc3("), "\\xff\\xc3(");
        // U+0085, a control character of two bytes.
        assert_eq!(printable("\u{85}".as_bytes()), "\\xc2\\x85");
        assert_eq!(printable("\u{2028}".as_bytes()), "\\xe2\\x80\\xa8");
    }

    #[test]
    fn what_turns_or_hides_is_escaped() {
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
        assert_eq!(printable("web\u{200b}".as_bytes()), "web\\xe2\\x80\\x8b");
        assert_eq!(printable("שלום".as_bytes()), "שלום");
    }

    #[test]
    fn a_cut_is_between_characters_and_escapes() {
        assert_eq!(printable_within("größe".as_bytes(), 3), "gr");
        assert_eq!(printable_within(b"a\nb", 4), "a");
        assert_eq!(printable_within(b"a\nb", 5), "a\\x0a");
        assert_eq!(printable_within(b"abc", 0), "");
        // A character of two bytes is escaped whole or not at all.
        assert_eq!(printable_within("\u{85}".as_bytes(), 7), "");
    }

    proptest! {
        #[test]
        fn any_bytes(name: Vec<u8>, limit in 0_usize..64) {
            let text = printable_within(&name, limit);
            prop_assert!(text.len() <= limit);
            prop_assert!(text.chars().all(is_plain));
            prop_assert!(printable(&name).starts_with(&text));
            // Doing it twice changes nothing.
            prop_assert_eq!(printable(text.as_bytes()), text);
        }
    }

    #[test]
    fn fuzz_printable() {
        bolero::check!(name = "printable").for_each(|input: &[u8]| {
            let Some((limit, name)) = input.split_first() else {
                return;
            };
            let limit = usize::from(*limit);
            let text = printable_within(name, limit);
            assert!(text.len() <= limit && text.chars().all(is_plain));
            assert!(printable(name).starts_with(&text));
            assert_eq!(printable_within(text.as_bytes(), limit), text);
        });
    }
}
