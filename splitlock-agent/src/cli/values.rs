//! Values of flags.

use std::{net::ToSocketAddrs as _, path::Path, time::Duration};

use crate::export::server::listeners::ListenAddress;

/// Paths that the server uses for something else.
const TAKEN: [&str; 3] = ["/", "/healthz", "/readyz"];

/// An address to listen on, without one all; or `unix:` and the path of a socket.
pub fn listen_address(text: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !Path::new(path).is_absolute() {
            return Err("the path of a socket begins with /: unix:/run/…".to_owned());
        }
        return Ok(ListenAddress::Unix(path.into()));
    }
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => text.to_owned(),
    };
    whole
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .next()
        .map(ListenAddress::Tcp)
        .ok_or_else(|| "the name has no address".to_owned())
}

/// A path that is free for the metrics.
pub fn telemetry_path(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if !text.starts_with('/') || !text.chars().all(allowed) {
        return Err("begins with / and has letters, digits and /-._~ only".to_owned());
    }
    if TAKEN.contains(&text) || text.starts_with("/api/") {
        return Err("that path is the server's for something else".to_owned());
    }
    Ok(text.to_owned())
}

/// A length of time.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    units
        .iter()
        .find_map(|(unit, factor)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(*factor).map(Duration::from_millis)
        })
        .ok_or_else(|| "a whole number and one of ms, s, m, h, d, such as 15m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn listen_addresses() {
        let read = |text| listen_address(text).map(|address| address.to_string());
        assert_eq!(read("127.0.0.1:9839").as_deref(), Ok("127.0.0.1:9839"));
        assert_eq!(read("[::1]:0").as_deref(), Ok("[::1]:0"));
        assert_eq!(read(":9839").as_deref(), Ok("[::]:9839"));
        assert!(read("localhost:9839").is_ok());
        assert_eq!(read("unix:/run/x.sock").as_deref(), Ok("unix:/run/x.sock"));
        for text in [
            "",
            "localhost",
            "127.0.0.1",
            ":x",
            "127.0.0.1:70000",
            "unix:",
            "unix:x",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for text in [
            "",
            "s",
            "15",
            "-1s",
            "1.5h",
            "1y",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn telemetry_paths() {
        assert_eq!(telemetry_path("/m/x-1"), Ok("/m/x-1".to_owned()));
        for text in [
            "",
            "metrics",
            "/",
            "/healthz",
            "/api/v1/snapshot",
            "/{x}",
            "/a b",
            "/ä",
        ] {
            assert!(telemetry_path(text).is_err(), "{text}");
        }
    }

    /// Names would be looked up in the network.
    fn needs_no_network(text: &str) -> bool {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        host.is_empty() || inner.unwrap_or(host).parse::<std::net::IpAddr>().is_ok()
    }

    #[test]
    fn fuzz_flag_values() {
        bolero::check!(name = "flag_values").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            if needs_no_network(&text)
                && let Ok(address) = listen_address(&text)
            {
                assert_eq!(listen_address(&address.to_string()), Ok(address), "{text}");
            }
            if let Ok(found) = duration(&text) {
                assert_eq!(duration(&format!("{}ms", found.as_millis())), Ok(found));
            }
            if let Ok(path) = telemetry_path(&text) {
                assert_eq!(*path, *text);
                // The router panics at a path that it cannot have, or has twice.
                let answer = || axum::routing::get(async || "");
                let router = TAKEN
                    .into_iter()
                    .fold(axum::Router::<()>::new(), |router, path| {
                        router.route(path, answer())
                    });
                let router = router
                    .route("/api/v1/snapshot", answer())
                    .route("/api/v1/subjects/{subject}", answer());
                let _ = router.route(&path, answer());
            }
        });
    }
}
