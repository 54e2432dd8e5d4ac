//! One record of `/dev/kmsg`, as one `read` gives it.
//!
//! ```text
//! 6,341,1191618816,-,caller=T7252;traps: ac[7252] trap …\n SUBSYSTEM=acpi\n DEVICE=…\n
//! ```
//!
//! Before the semicolon: priority and facility in one number, sequence number, microseconds,
//! flags, and fields that later kernels may add, which are to be ignored (`caller` comes with
//! `CONFIG_PRINTK_CALLER`). Then the text, in which the kernel writes the backslash, and every
//! byte that is not printable ASCII, as `\xNN`. Lines that start with a blank are the device
//! dictionary. Sources:
//! [Documentation/ABI/testing/dev-kmsg](https://github.com/torvalds/linux/blob/v7.3/Documentation/ABI/testing/dev-kmsg),
//! and `info_print_ext_header`, `msg_add_ext_text` in
//! [kernel/printk/printk.c](https://github.com/torvalds/linux/blob/v7.3/kernel/printk/printk.c)
//! (6.1, 6.12 and 7.3 agree).

use std::str::FromStr;

/// A record of the kernel log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Severity, 0 (emergency) to 7 (debug).
    pub priority: u8,
    /// Who wrote it: 0 is the kernel. A write to `/dev/kmsg` never gets 0, even if it asks for
    /// it (`devkmsg_write`).
    pub facility: u32,
    /// Number of the record since boot. A gap between two reads is a loss.
    pub sequence: u64,
    /// Microseconds on the clock of the kernel log (`local_clock`), which starts at boot and is
    /// near to `CLOCK_MONOTONIC`, but not equal to it.
    pub timestamp_us: u64,
    /// A piece of a line that was not printed at once (flag `c`, on old kernels also `+`). Its
    /// text may begin anywhere in the line.
    pub fragment: bool,
    /// The text, unescaped: what the kernel printed, which need not be UTF-8.
    pub text: Vec<u8>,
}

/// Why bytes are no record. Each tells how they begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No semicolon ends the prefix.
    #[error("/dev/kmsg: a record without ';': {start:?}")]
    NoText {
        /// The first bytes.
        start: String,
    },
    /// A field of the prefix is missing, or is not the number that it should be.
    #[error("/dev/kmsg: a record with a bad {field}: {start:?}")]
    BadField {
        /// Which one.
        field: &'static str,
        /// The first bytes.
        start: String,
    },
}

impl Record {
    /// The record in `bytes`: exactly what one `read` returned.
    ///
    /// # Errors
    ///
    /// If the prefix is not as documented. Anything passes as text.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut parts = bytes.splitn(2, |byte| *byte == b';');
        let prefix = parts.next().unwrap_or_default();
        let Some(body) = parts.next() else {
            return Err(RecordError::NoText {
                start: start(bytes),
            });
        };
        let mut prefix = Prefix {
            bytes: prefix,
            fields: prefix.split(|byte| *byte == b','),
        };
        let syslog: u32 = prefix.number("priority")?;
        Ok(Self {
            priority: (syslog & 7) as u8,
            facility: syslog >> 3,
            sequence: prefix.number("sequence number")?,
            timestamp_us: prefix.number("timestamp")?,
            fragment: prefix.field("flag")? != b"-",
            text: unescape(body.split(|byte| *byte == b'\n').next().unwrap_or_default()),
        })
    }

    /// Whether the kernel itself printed the text, and all of it: only then can its beginning
    /// be believed.
    #[must_use]
    pub fn is_whole_kernel_message(&self) -> bool {
        self.facility == 0 && !self.fragment
    }
}

struct Prefix<'bytes, Fields> {
    bytes: &'bytes [u8],
    fields: Fields,
}

impl<'bytes, Fields: Iterator<Item = &'bytes [u8]>> Prefix<'bytes, Fields> {
    fn field(&mut self, field: &'static str) -> Result<&'bytes [u8], RecordError> {
        let found = self.fields.next().filter(|found| !found.is_empty());
        found.ok_or_else(|| self.bad(field))
    }

    fn number<T: FromStr>(&mut self, field: &'static str) -> Result<T, RecordError> {
        decimal(self.field(field)?).ok_or_else(|| self.bad(field))
    }

    fn bad(&self, field: &'static str) -> RecordError {
        RecordError::BadField {
            field,
            start: start(self.bytes),
        }
    }
}

/// Digits only: `FromStr` alone would take a sign.
fn decimal<T: FromStr>(digits: &[u8]) -> Option<T> {
    let digits = str::from_utf8(digits).ok()?;
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| digits.parse().ok()).flatten()
}

/// Undoes `\xNN`. A backslash that starts no such escape stays: the kernel writes none.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = escape(rest).unwrap_or((byte, after));
        plain.push(byte);
        rest = after;
    }
    plain
}

/// The byte that an escape at the start of `text` stands for, and what follows the escape.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.strip_prefix(b"\\x")?.split_at_checked(2)?;
    let mut byte = 0;
    for digit in digits {
        byte = byte << 4 | char::from(*digit).to_digit(16)? as u8;
    }
    Some((byte, after))
}

/// Enough of a record to recognize it in an error message.
fn start(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Record {
        Record::parse(bytes).unwrap()
    }

    #[test]
    fn a_record_of_a_running_6_18() {
        let bytes = b"6,341,1191618816,-;traps: ac[7252] trap alignment check ip:56167f6d9184 \
            sp:7ffcba2e47e0 error:0 in ac[1184,56167f6d9000+1000]\n";
        let record = parse(bytes);
        assert_eq!((record.priority, record.facility), (6, 0));
        assert_eq!((record.sequence, record.timestamp_us), (341, 1_191_618_816));
        assert!(
            record
                .text
                .starts_with(b"traps: ac[7252] trap alignment check ip:")
        );
        assert!(
            record
                .text
                .ends_with(b"error:0 in ac[1184,56167f6d9000+1000]")
        );
        assert!(record.is_whole_kernel_message());
    }

    #[test]
    fn the_dictionary_is_no_text() {
        let bytes = b"6,191,292789,-;acpi PNP0A08:00: _OSC: OS supports [ClockPM]\n \
            SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A08:00\n";
        assert_eq!(
            parse(bytes).text,
            b"acpi PNP0A08:00: _OSC: OS supports [ClockPM]"
        );
    }

    #[test]
    fn later_fields_are_ignored() {
        for more in ["", ",caller=T123", ",caller=C0", ",caller=T1,new=;"] {
            let record = parse(format!("4,18446744073709551615,7,-{more};text").as_bytes());
            assert_eq!(record.sequence, u64::MAX);
            assert_eq!(record.timestamp_us, 7);
            assert!(record.text.ends_with(b"text"));
        }
        assert_eq!(parse(b"4,1,2,-;;x,y;z\n").text, b";x,y;z");
    }

    #[test]
    fn a_users_line_and_a_fragment_are_not_the_kernels_own() {
        let record = parse(b"12,1,2,-;x86/split lock detection: disabled\n");
        assert_eq!((record.priority, record.facility), (4, 1));
        assert!(!record.is_whole_kernel_message());
        assert_eq!(parse(b"2047,1,2,-;x").facility, 255);
        for flag in ["c", "+"] {
            let record = parse(format!("4,1,2,{flag};x").as_bytes());
            assert!(record.fragment && !record.is_whole_kernel_message());
        }
    }

    #[test]
    fn escapes_become_bytes() {
        // A real line of 6.18: comm "a\b", newline, 0xff, "[1] tr".
        let text = parse(b"6,343,1191621268,-;traps: a\\x5cb\\x0a\\xff[1] tr[7254] trap\n").text;
        assert_eq!(text, b"traps: a\\b\n\xff[1] tr[7254] trap");
        // An escaped backslash does not start an escape.
        assert_eq!(parse(b"6,1,2,-;\\x5cx41\n").text, b"\\x41");
        assert_eq!(parse(b"6,1,2,-;\\x4A\\x4a").text, b"JJ");
        for odd in ["\\", "\\x", "\\x5", "\\xg0", "\\x0g", "\\n", "\\x+1"] {
            assert_eq!(
                parse(format!("6,1,2,-;a{odd}").as_bytes()).text,
                format!("a{odd}").as_bytes()
            );
        }
    }

    #[test]
    fn an_empty_text_is_a_text() {
        assert_eq!(parse(b"6,1,2,-;\n").text, b"");
        assert_eq!(parse(b"6,1,2,-;").text, b"");
        assert_eq!(parse(b"6,1,2,-;\n KEY=value\n").text, b"");
    }

    #[test]
    fn malformed_prefixes_are_errors() {
        for bytes in ["", "\n", "6,1,2,-", "no prefix at all", "6,1,2,-\n"] {
            let found = Record::parse(bytes.as_bytes());
            assert!(
                matches!(found, Err(RecordError::NoText { .. })),
                "{bytes:?}"
            );
        }
        for (bytes, bad) in [
            (&b";text"[..], "priority"),
            (b"6;text", "sequence number"),
            (b"6,1;text", "timestamp"),
            (b"6,1,2;text", "flag"),
            (b"6,1,2,;text", "flag"),
            (b"-6,1,2,-;text", "priority"),
            (b"+6,1,2,-;text", "priority"),
            (b"4294967296,1,2,-;text", "priority"),
            (b"6,18446744073709551616,2,-;text", "sequence number"),
            (b"6,,2,-;text", "sequence number"),
            (b"6,1, 2,-;text", "timestamp"),
            (b"6,1,0x2,-;text", "timestamp"),
            (b"\xff,1,2,-;text", "priority"),
        ] {
            let Err(RecordError::BadField { field, .. }) = Record::parse(bytes) else {
                panic!("{bytes:?}");
            };
            assert_eq!(field, bad, "{bytes:?}");
        }
    }

    #[test]
    fn an_error_tells_how_the_record_begins() {
        let error = Record::parse(b"6,x,2,-;text").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/dev/kmsg: a record with a bad sequence number: \"6,x,2,-\""
        );
        let long = Record::parse(&[b'x'; 9000]).unwrap_err();
        assert!(long.to_string().len() < 200);
    }

    #[test]
    fn no_cut_of_a_record_panics() {
        let bytes = b"6,343,1191621268,-,caller=T1;traps: a\\x5cb\\xff[1]\n SUBSYSTEM=acpi\n";
        for length in 0..=bytes.len() {
            let _ = Record::parse(&bytes[..length]);
        }
        for byte in 0..=u8::MAX {
            for position in 0..bytes.len() {
                let mut bytes = *bytes;
                bytes[position] = byte;
                let _ = Record::parse(&bytes);
            }
        }
    }
}
