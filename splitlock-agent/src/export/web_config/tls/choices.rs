//! Cipher suites and curves, by the names that Go has for them.

use anyhow::{Result, bail, ensure};
use tokio_rustls::rustls::{
    CipherSuite, NamedGroup, SupportedCipherSuite,
    crypto::{CryptoProvider, ring},
};

/// What there is to choose from.
pub fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// Go's name of a suite.
fn suite_name(suite: SupportedCipherSuite) -> String {
    match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256".to_owned(),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384".to_owned(),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256".to_owned(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

/// Leaves those that are listed, in that order. Where none of TLS 1.3 is listed all of them stay, as
/// with Go, which has no choice there.
pub fn choose_suites(provider: &mut CryptoProvider, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let all = provider.cipher_suites.clone();
    let mut chosen = vec![];
    for name in names {
        match all.iter().find(|suite| suite_name(**suite) == *name) {
            Some(suite) => chosen.push(*suite),
            None => bail!(
                "{name} is not available; there are {}",
                all.iter()
                    .copied()
                    .map(suite_name)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }
    if chosen.iter().all(|suite| suite.tls13().is_none()) {
        chosen.splice(
            0..0,
            all.into_iter().filter(|suite| suite.tls13().is_some()),
        );
    }
    provider.cipher_suites = chosen;
    Ok(())
}

/// Leaves those that are listed, in that order.
pub fn choose_curves(provider: &mut CryptoProvider, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut chosen = vec![];
    for name in names {
        let group = match name.as_str() {
            "CurveP256" => NamedGroup::secp256r1,
            "CurveP384" => NamedGroup::secp384r1,
            "X25519" => NamedGroup::X25519,
            _ => bail!("{name} is not available; there are CurveP256, CurveP384, X25519"),
        };
        chosen.extend(
            provider
                .kx_groups
                .iter()
                .copied()
                .find(|known| known.name() == group),
        );
    }
    ensure!(chosen.len() == names.len(), "a curve is not available");
    provider.kx_groups = chosen;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn suites_are_chosen_by_go_names_and_those_of_tls_1_3_stay() {
        let mut all = provider();
        let tls12 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
        choose_suites(&mut all, &names(&[tls12])).unwrap();
        let left: Vec<String> = all.cipher_suites.iter().copied().map(suite_name).collect();
        assert_eq!(left.len(), 4, "{left:?}");
        assert_eq!(left[3], tls12);
        let mut all = provider();
        let tls13 = "TLS_CHACHA20_POLY1305_SHA256";
        choose_suites(&mut all, &names(&[tls13, tls12])).unwrap();
        let left: Vec<String> = all.cipher_suites.iter().copied().map(suite_name).collect();
        assert_eq!(left, [tls13, tls12]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for name in ["TLS_RSA_WITH_AES_128_CBC_SHA", "x", ""] {
            let error = choose_suites(&mut provider(), &names(&[name])).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
        for name in ["CurveP521", "X25519MLKEM768", "x25519"] {
            let error = choose_curves(&mut provider(), &names(&[name])).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn curves_have_the_order_of_the_file() {
        let mut all = provider();
        choose_curves(&mut all, &names(&["CurveP384", "X25519"])).unwrap();
        let left: Vec<NamedGroup> = all.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(left, [NamedGroup::secp384r1, NamedGroup::X25519]);
    }
}
