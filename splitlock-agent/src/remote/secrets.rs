//! What an agent is shown, and what it has to show: from files.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio_rustls::rustls::{crypto::ring, sign::CertifiedKey};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::cli::remote::RemoteOptions;

/// Where distributions keep the CAs that they trust: Debian and its kin, Fedora and its kin, SUSE.
const TRUSTED: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// TLS as the options have it.
pub fn tls(options: &RemoteOptions) -> Result<TlsConfig> {
    let roots = match &options.ca_file {
        Some(path) => certificates(path).context("--url.ca-file")?,
        None => {
            let path = TRUSTED.iter().map(Path::new).find(|path| path.exists());
            let path = path.context(
                "this system has no list of CAs that it trusts: name one by --url.ca-file",
            )?;
            certificates(path)?
        }
    };
    let own = match (&options.cert_file, &options.key_file) {
        (Some(certificate), Some(key)) => Some(own(certificate, key)?),
        _ => None,
    };
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(own)
        .unversioned_rustls_crypto_provider(ring::default_provider().into())
        .build())
}

/// User and password, with the colon between them.
pub fn credentials(options: &RemoteOptions) -> Result<Option<String>> {
    let Some(path) = &options.credentials_file else {
        return Ok(None);
    };
    let name = || format!("--url.credentials-file {}", path.display());
    let text = fs::read_to_string(path).with_context(name)?;
    // One line, as an editor leaves it.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    ensure!(
        text.contains(':') && !text.contains('\n'),
        "{}: it has one line, USER:PASSWORD",
        name()
    );
    Ok(Some(text.to_owned()))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let found: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    ensure!(
        !found.is_empty(),
        "{}: there is no certificate in it",
        path.display()
    );
    Ok(found)
}

fn own(certificate: &Path, key: &Path) -> Result<ClientCert> {
    let chain = certificates(certificate).context("--url.cert-file")?;
    let bytes = fs::read(key).with_context(|| format!("--url.key-file {}", key.display()))?;
    let private = PrivateKey::from_pem(&bytes).map_err(|_| {
        anyhow!(
            "--url.key-file {}: there is no private key without a passphrase in it",
            key.display()
        )
    })?;
    // ureq takes it for granted that they belong together.
    let der = chain.iter().map(|one| one.der().to_vec().into()).collect();
    let pair = tokio_rustls::rustls::pki_types::pem::PemObject::from_pem_slice(&bytes)
        .map_err(|_| anyhow!("--url.key-file {}: no private key", key.display()))?;
    CertifiedKey::from_der(der, pair, &ring::default_provider())
        .context("--url.cert-file and --url.key-file")?;
    Ok(ClientCert::new_with_certs(&chain, private))
}
