//! Credentials of a request (RFC 7617).

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A name and a password.
#[derive(Debug, PartialEq, Eq)]
pub struct Credentials {
    pub name: String,
    pub password: Vec<u8>,
}

impl Credentials {
    /// Reads them; nothing where there are none, more than one, or something else.
    pub fn of(head: &HeaderMap) -> Option<Self> {
        let mut values = head.get_all(AUTHORIZATION).iter();
        let value = values.next()?.to_str().ok()?;
        if values.next().is_some() {
            return None;
        }
        let (scheme, encoded) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let mut decoded = STANDARD.decode(encoded.trim()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let password = decoded.split_off(colon + 1);
        decoded.truncate(colon);
        Some(Self {
            name: String::from_utf8(decoded).ok()?,
            password,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(values: &[&str]) -> Option<Credentials> {
        let mut head = HeaderMap::new();
        for value in values {
            head.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        Credentials::of(&head)
    }

    #[test]
    fn they_are_read_as_clients_send_them() {
        let expected = |name: &str, password: &str| {
            Some(Credentials {
                name: name.to_owned(),
                password: password.into(),
            })
        };
        let encode = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(read(&[&encode("me:secret")]), expected("me", "secret"));
        assert_eq!(read(&[&encode("me:a:b")]), expected("me", "a:b"));
        assert_eq!(read(&[&encode("me:")]), expected("me", ""));
        assert_eq!(
            read(&[&encode("me:x").replace("Basic", "bAsIc")]),
            expected("me", "x")
        );
        for wrong in [
            &["Basic"] as &[&str],
            &["Basic !"],
            &["Bearer bWU6c2VjcmV0"],
            &[&encode("no colon")],
            &[&encode("a:b"), &encode("a:b")],
            &[],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        let bytes = format!("Basic {}", STANDARD.encode(b"\xff:x"));
        assert_eq!(read(&[&bytes]), None);
    }

    #[test]
    fn fuzz_credentials() {
        bolero::check!(name = "credentials").for_each(|bytes: &[u8]| {
            let encoded = format!("Basic {}", STANDARD.encode(bytes));
            for value in [bytes, encoded.as_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(value) else {
                    continue;
                };
                let head = HeaderMap::from_iter([(AUTHORIZATION, value)]);
                if let Some(Credentials { name, .. }) = Credentials::of(&head) {
                    assert!(!name.contains(':'));
                }
            }
        });
    }
}
