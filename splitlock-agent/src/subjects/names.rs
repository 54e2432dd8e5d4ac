//! Names that processes give themselves, made fit for labels and logs.

use std::fmt::Write as _;

/// A name as text: what is no UTF-8 and all control characters become `\xNN`.
pub fn printable(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                let mut buffer = [0; 4];
                escape(&mut text, character.encode_utf8(&mut buffer).as_bytes());
            } else {
                text.push(character);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
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
    }
}
