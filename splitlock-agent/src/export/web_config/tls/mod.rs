//! TLS as the file has it, for rustls.

mod choices;
mod client;

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use self::client::ClientPolicy;
use super::{file::TlsServerConfig, files::Files};

/// What is spoken inside: no HTTP/2.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// TLS of one reading of the file.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    client: ClientPolicy,
    allows_tls12: bool,
}

impl Tls {
    /// Reads the certificates and the key.
    pub fn new(file: TlsServerConfig, folder: &Path, files: &mut Files) -> Result<Self> {
        let mut provider = choices::provider();
        choices::choose_suites(&mut provider, &file.cipher_suites).context("cipher_suites")?;
        choices::choose_curves(&mut provider, &file.curve_preferences)
            .context("curve_preferences")?;
        let versions = versions(file.min_version.as_deref(), file.max_version.as_deref())?;
        let provider = Arc::new(provider);
        let mut pem = |name: &str, inline: Option<&str>, file: Option<&str>| {
            let file_name = format!("{name}_file");
            let inline = inline.filter(|text| !text.is_empty());
            match (inline, file.filter(|path| !path.is_empty())) {
                (Some(_), Some(_)) => bail!("{name} and {file_name}: one of them, not both"),
                (Some(text), None) => Ok(Some((name.to_owned(), text.as_bytes().to_vec()))),
                (None, Some(path)) => {
                    let bytes = files.read(&folder.join(path)).context(file_name.clone())?;
                    Ok(Some((file_name, bytes)))
                }
                (None, None) => Ok(None),
            }
        };
        let (name, bytes) = pem("cert", file.cert.as_deref(), file.cert_file.as_deref())?
            .context("cert_file (or cert) is missing: TLS needs a certificate")?;
        let chain = certificates(&bytes).context(name)?;
        let (name, bytes) = pem("key", file.key.as_deref(), file.key_file.as_deref())?
            .context("key_file (or key) is missing: TLS needs the certificate's key")?;
        // The error's own words could be the key's.
        let key = PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|_| anyhow!("{name} holds no private key as PEM without a passphrase"))?;
        let ca = pem(
            "client_ca",
            file.client_ca.as_deref(),
            file.client_ca_file.as_deref(),
        )?;
        let roots = ca
            .map(|(name, bytes)| roots(&bytes).context(name))
            .transpose()?;
        let client = ClientPolicy::new(
            file.client_auth_type.as_deref(),
            roots.is_some(),
            file.client_allowed_sans,
        )?;
        let mut config = builder(&provider, &versions)?
            .with_client_cert_verifier(client.verifier(roots, &provider)?)
            .with_single_cert(chain, key)
            .context("the certificate and the key")?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.ignore_client_order = file.prefer_server_cipher_suites.unwrap_or(true);
        // Sessions that go on would go on with what is no longer allowed; the agent has few clients.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            client,
            allows_tls12: versions.contains(&&TLS12),
        })
    }

    /// Whether nobody is served without a certificate.
    pub fn requires_certificate(&self) -> bool {
        self.client.requires()
    }

    /// What this lets happen that another did not.
    pub fn laxer_than(&self, other: &Self) -> Option<&'static str> {
        if self.client.is_laxer_than(&other.client) {
            return Some("it asks less of clients' certificates");
        }
        (self.allows_tls12 && !other.allows_tls12).then_some("it lowers min_version")
    }
}

fn builder(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<tokio_rustls::rustls::ConfigBuilder<ServerConfig, tokio_rustls::rustls::WantsVerifier>>
{
    ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .context("cipher_suites, min_version, max_version and curve_preferences leave nothing")
}

/// Versions from the least to the greatest that are allowed.
fn versions(
    least: Option<&str>,
    most: Option<&str>,
) -> Result<Vec<&'static SupportedProtocolVersion>> {
    let read = |name: &str, text: Option<&str>, default: u8| match text {
        None | Some("") => Ok(default),
        Some("TLS12") => Ok(2),
        Some("TLS13") => Ok(3),
        Some("TLS10" | "TLS11") => {
            bail!("{name}: TLS 1.0 and 1.1 are not spoken here; TLS12 and TLS13 are")
        }
        Some(_) => bail!("{name} is TLS12 or TLS13"),
    };
    let least = read("min_version", least, 2)?;
    let most = read("max_version", most, 3)?;
    ensure!(least <= most, "min_version is greater than max_version");
    Ok([(2, &TLS12), (3, &TLS13)]
        .into_iter()
        .filter(|(number, _)| (least..=most).contains(number))
        .map(|(_, version)| version)
        .collect())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|_| anyhow!("it is no PEM"))?;
    ensure!(!read.is_empty(), "there is no certificate in it");
    Ok(read)
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .context("a certificate in it cannot be one of a CA")?;
    }
    Ok(roots)
}
