//! What tests of the web configuration need: a folder with certificates, users, and independent
//! clients.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};

/// The password of every user.
pub const PASSWORD: &str = "correct horse";
/// The user.
pub const USER: &str = "scraper";

/// A CA of a test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// A certificate with these names, and its key.
    fn certify(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params
            .subject_alt_names
            .push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let signed = params.signed_by(&key, &self.0).expect("a certificate");
        (signed.pem(), key.serialize_pem())
    }
}

/// A folder of a test's own, with a web configuration.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("splitlock-web-{}-{number}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        // As certificates are renewed: all at once.
        let new = self.0.join(format!("{name}.new"));
        fs::write(&new, text).expect("a file");
        fs::rename(new, self.0.join(name)).expect("a file");
        self.path(name)
    }

    /// Writes `NAME.crt` and `NAME.key`, and the CA's as `NAME-ca.crt`.
    pub fn certify(&self, name: &str, authority: &Authority, names: &[&str]) {
        let (certificate, key) = authority.certify(names);
        self.write(&format!("{name}.crt"), &certificate);
        self.write(&format!("{name}.key"), &key);
        self.write(&format!("{name}-ca.crt"), &authority.0.pem());
    }

    /// With a certificate for this host.
    pub fn with_server() -> Self {
        let folder = Self::new();
        folder.certify("server", &Authority::new("server CA"), &["localhost"]);
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// TLS with `server.crt`.
pub const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// One user, whose hash takes as long as one usually does.
pub fn users(cost: u32) -> String {
    let hash = bcrypt::hash(PASSWORD, cost).expect("a hash");
    format!("basic_auth_users:\n  {USER}: {hash}\n")
}

/// What curl got.
#[derive(Debug)]
#[expect(dead_code, reason = "its error is what a failed test shows")]
pub struct Got {
    /// 0 where there was no answer.
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
    /// curl's own words.
    pub error: String,
}

/// Asks with curl, an independent client.
pub fn curl(url: &str, args: &[&str]) -> Got {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(args)
        .arg(url)
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    Got {
        status: status.unwrap_or(0),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The URL of a path, by the name that the certificate has.
pub fn url(address: SocketAddr, path: &str) -> String {
    format!("https://localhost:{}{path}", address.port())
}

/// Whether a path exists.
pub fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
