//! UUIDs as VMMs are given them.

/// A UUID in lower case, 8-4-4-4-12; `None` for anything else, as QEMU refuses it too
/// (`qemu_uuid_is_valid`, util/uuid.c), and for all zeros, which is nobody's.
pub fn normalise(text: &[u8]) -> Option<String> {
    let is_dash = |at| matches!(at, 8 | 13 | 18 | 23);
    let fits = text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| {
            if is_dash(at) {
                *byte == b'-'
            } else {
                byte.is_ascii_hexdigit()
            }
        });
    let is_nil = text.iter().all(|byte| matches!(byte, b'0' | b'-'));
    (fits && !is_nil).then(|| {
        text.iter()
            .map(|byte| char::from(byte.to_ascii_lowercase()))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms() {
        let uuid = "4DEA22B3-1d52-d8f3-2516-782e98ab3fa0";
        assert_eq!(normalise(uuid.as_bytes()), Some(uuid.to_lowercase()));
        for wrong in [
            "",
            "4dea22b31d52d8f32516782e98ab3fa0",
            "4dea22b3-1d52-d8f3-2516-782e98ab3fa",
            "4dea22b3-1d52-d8f3-2516-782e98ab3fag",
            "4dea22b3-1d52-d8f3-25167-82e98ab3fa0",
            "{4dea22b3-1d52-d8f3-2516-782e98ab3fa0}",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert_eq!(normalise(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn doing_it_twice_changes_nothing(text in "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}") {
            let once = normalise(text.as_bytes());
            if let Some(once) = &once {
                prop_assert_eq!(once, &text.to_lowercase());
            }
            prop_assert_eq!(once.as_ref().and_then(|uuid| normalise(uuid.as_bytes())), once);
        }
    }
}
