//! Whether a client takes gzip, and the packing.

use std::io::{self, Write as _};

use axum::http::{HeaderMap, header::ACCEPT_ENCODING};
use flate2::{Compression, write::GzEncoder};

/// Whether the request's `Accept-Encoding` admits gzip (RFC 9110, section 12.5.3).
pub fn is_taken(request: &HeaderMap) -> bool {
    let mut any = false;
    for value in request.get_all(ACCEPT_ENCODING) {
        for entry in value.to_str().unwrap_or_default().split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let taken = parts.all(|parameter| !refuses(parameter));
            if ["gzip", "x-gzip"]
                .iter()
                .any(|name| coding.eq_ignore_ascii_case(name))
            {
                return taken;
            }
            any |= coding == "*" && taken;
        }
    }
    any
}

/// Whether a parameter is the weight 0, or no weight that can be read.
fn refuses(parameter: &str) -> bool {
    match parameter.split_once('=') {
        Some((name, weight)) if name.trim().eq_ignore_ascii_case("q") => !weight
            .trim()
            .parse::<f32>()
            .is_ok_and(|weight| weight > 0.0),
        _ => false,
    }
}

/// Packs a text.
///
/// # Errors
/// Never in practice: a vector takes everything.
pub fn pack(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::io::Read as _;

    #[test]
    fn it_is_taken_as_the_client_says() {
        for (said, taken) in [
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("gzip;q=1.0", true),
            ("gzip ; q = 0.001", true),
            ("deflate, gzip;q=0.5, *;q=0", true),
            ("br, *", true),
            ("*;q=0.1", true),
            ("", false),
            ("identity", false),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip;q=0.000, *", false),
            ("*, gzip;q=0", false),
            ("*;q=0", false),
            ("gzip;q=some", false),
            ("gzipped", false),
        ] {
            let mut request = HeaderMap::new();
            request.insert(ACCEPT_ENCODING, HeaderValue::from_static(said));
            assert_eq!(is_taken(&request), taken, "{said}");
        }
        assert!(!is_taken(&HeaderMap::new()));
        let mut request = HeaderMap::new();
        for said in ["br", "gzip"] {
            request.append(ACCEPT_ENCODING, HeaderValue::from_static(said));
        }
        assert!(is_taken(&request));
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let text = "splitlock_".repeat(1000);
        let packed = pack(text.as_bytes()).unwrap();
        assert!(packed.len() * 10 < text.len());
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, text);
    }

    #[test]
    fn fuzz_accept_encoding() {
        bolero::check!(name = "accept_encoding").for_each(|said: &[u8]| {
            let Ok(value) = HeaderValue::from_bytes(said) else {
                return;
            };
            let mut request = HeaderMap::new();
            request.insert(ACCEPT_ENCODING, value.clone());
            let taken = is_taken(&request);
            let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
            assert!(
                !taken || text.contains("gzip") || text.contains('*'),
                "{text}"
            );
            // Who says first what it wants of gzip gets that.
            request.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"));
            request.append(ACCEPT_ENCODING, value);
            assert!(!is_taken(&request));
        });
    }
}
