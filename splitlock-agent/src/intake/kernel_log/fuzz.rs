//! Random lines, and comms as hostile as a comm can be.

use super::*;

const COMM_MAX: usize = 15;

/// As the kernel writes a text into a record (`msg_add_ext_text`, kernel/printk/printk.c).
fn escaped(text: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b' '..=b'~' if *byte != b'\\' => vec![*byte],
        other => format!("\\x{other:02x}").into_bytes(),
    };
    text.iter().flat_map(escape).collect()
}

#[test]
fn fuzz_log_record() {
    bolero::check!(name = "log_record").for_each(|bytes: &[u8]| {
        if let Ok(record) = Record::parse(bytes) {
            assert!(record.priority < 8);
            assert_eq!(
                record.is_whole_kernel_message(),
                record.facility == 0 && !record.fragment
            );
        }
        let mut batch = Batch::default();
        batch.take_in(bytes);
        assert!(batch.reports.len() <= 1 && batch.malformed <= 1);
        // Whatever was printed comes out of its record again, and is not believed if a user wrote it.
        for (syslog, facility) in [(4, 0), (12, 1)] {
            let head = format!("{syslog},7,99,-;").into_bytes();
            let record =
                Record::parse(&[head, escaped(bytes), b"\n KEY=x\n".to_vec()].concat()).unwrap();
            assert_eq!(record.text, bytes);
            assert_eq!((record.priority, record.facility), (4, facility));
            assert_eq!(record.is_whole_kernel_message(), facility == 0);
        }
    });
}

#[test]
fn fuzz_log_message() {
    bolero::check!(name = "log_message").for_each(|text: &[u8]| {
        let _ = LogMessage::parse(text);
        let behind = [b"x86/split lock detection: ", text].concat();
        if let Ok(Some(LogMessage::Trap { tid, .. })) = LogMessage::parse(&behind) {
            let digits = format!("/{tid} ");
            assert!(
                tid == 0
                    || text
                        .windows(digits.len())
                        .any(|part| part == digits.as_bytes())
                    || text.windows(2).any(|part| part == b"/0")
            );
        }
        // A comm cannot make another thread's line of its own.
        let comm = &text[..text.len().min(COMM_MAX)];
        let line =
            |before: &str, behind: &str| [before.as_bytes(), comm, behind.as_bytes()].concat();
        for (tag, words, expected) in [
            ("#AC", "took a split_lock", (Trap::SplitLock, What::Took)),
            ("#AC", "fatal split_lock", (Trap::SplitLock, What::Fatal)),
            ("#AC", "bogus split_lock", (Trap::SplitLock, What::Bogus)),
            ("#DB", "took a bus_lock", (Trap::BusLock, What::Took)),
        ] {
            let text = line(
                &format!("x86/split lock detection: {tag}: "),
                &format!("/4711 {words} trap at address: 0x401000"),
            );
            let Ok(Some(LogMessage::Trap {
                trap,
                what,
                tid,
                address,
                comm: found,
            })) = LogMessage::parse(&text)
            else {
                panic!("{:?}", String::from_utf8_lossy(&text));
            };
            assert_eq!(((trap, what), tid, address), (expected, 4711, 0x40_1000));
            assert_eq!(found, String::from_utf8_lossy(comm));
        }
        let text = line(
            "traps: ",
            "[4711] trap alignment check ip:401000 sp:7ffc0 error:0 in x[1+2]",
        );
        let expected = LogMessage::UserFatal {
            comm: String::from_utf8_lossy(comm).into_owned(),
            tid: 4711,
            ip: 0x40_1000,
        };
        assert_eq!(LogMessage::parse(&text), Ok(Some(expected)));
    });
}
