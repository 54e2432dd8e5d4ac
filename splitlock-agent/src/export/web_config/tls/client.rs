//! What is asked of clients' certificates.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoClientAuth, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use webpki::EndEntityCert;

/// `client_auth_type` and `client_allowed_sans`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPolicy {
    ask: Ask,
    /// Names of which a certificate needs one; any will do where this is nothing.
    names: Option<Vec<String>>,
}

/// By the names that Go has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    No,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

impl ClientPolicy {
    /// Reads it.
    pub fn new(kind: Option<&str>, has_roots: bool, names: Option<Vec<String>>) -> Result<Self> {
        let ask = match kind.unwrap_or_default() {
            "" | "NoClientCert" => Ask::No,
            "RequestClientCert" => Ask::Request,
            "RequireAnyClientCert" | "RequireClientCert" => Ask::RequireAny,
            "VerifyClientCertIfGiven" => Ask::VerifyIfGiven,
            "RequireAndVerifyClientCert" => Ask::RequireAndVerify,
            _ => bail!(
                "client_auth_type is NoClientCert, RequestClientCert, RequireAnyClientCert, \
                 VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            ),
        };
        let policy = Self { ask, names };
        ensure!(
            !has_roots || ask != Ask::No,
            "client_ca_file without client_auth_type: nobody would be asked for a certificate"
        );
        ensure!(
            has_roots || !policy.verifies(),
            "client_ca_file is missing: client_auth_type wants certificates verified"
        );
        if let Some(names) = &policy.names {
            ensure!(
                policy.requires(),
                "client_allowed_sans: client_auth_type has to be RequireAnyClientCert or \
                 RequireAndVerifyClientCert, as a client without a certificate has no name"
            );
            ensure!(
                !names.is_empty(),
                "client_allowed_sans: an empty list would let nobody in"
            );
            if let Some(name) = names.iter().find(|name| is_email(name)) {
                bail!(
                    "client_allowed_sans: {name}: e-mail addresses are not compared here; DNS names, IP addresses and URIs are"
                );
            }
        }
        Ok(policy)
    }

    /// Whether nobody is served without a certificate.
    pub fn requires(&self) -> bool {
        matches!(self.ask, Ask::RequireAny | Ask::RequireAndVerify)
    }

    fn verifies(&self) -> bool {
        matches!(self.ask, Ask::VerifyIfGiven | Ask::RequireAndVerify)
    }

    /// Whether this asks for less than another.
    pub fn is_laxer_than(&self, other: &Self) -> bool {
        (other.requires() && !self.requires())
            || (other.verifies() && !self.verifies())
            || (other.names.is_some() && self.names.is_none())
    }

    /// For rustls.
    pub fn verifier(
        &self,
        roots: Option<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>> {
        if self.ask == Ask::No {
            return Ok(Arc::new(NoClientAuth));
        }
        let chain = match roots.filter(|_| self.verifies()) {
            Some(roots) => Some(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .build()
                    .context("client_ca_file")?,
            ),
            None => None,
        };
        Ok(Arc::new(Verifier {
            policy: self.clone(),
            chain,
            provider: Arc::clone(provider),
        }))
    }
}

fn is_email(name: &str) -> bool {
    name.contains('@') && !name.contains(':')
}

/// Asks clients for a certificate.
#[derive(Debug)]
struct Verifier {
    policy: ClientPolicy,
    /// Who has to have signed it; anybody, where this is nothing.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn is_named(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        let Some(allowed) = &self.policy.names else {
            return Ok(true);
        };
        let parsed = EndEntityCert::try_from(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        Ok(allowed.iter().any(|name| {
            // Exactly: a certificate for *.example.org is none for a.example.org.
            parsed.valid_dns_names().any(|own| own == name)
                || parsed.valid_uri_names().any(|own| own == name)
                || is_address(&parsed, name)
        }))
    }
}

fn is_address(certificate: &EndEntityCert<'_>, name: &str) -> bool {
    name.parse::<IpAddr>().is_ok_and(|address| {
        certificate
            .verify_is_valid_for_subject_name(&ServerName::from(address))
            .is_ok()
    })
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.policy.requires()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain
            .as_ref()
            .map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(certificate, intermediates, now)?;
        }
        if self.is_named(certificate)? {
            return Ok(ClientCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
