//! Files as operators write them, right and wrong.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// bcrypt of `secret`, cost 4.
fn hash() -> String {
    bcrypt::hash("secret", 4).unwrap()
}

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("web-config-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// With `a.crt` and `a.key`.
    fn with_certificate() -> Self {
        let folder = Self::new();
        folder.certify("a");
        folder
    }

    fn certify(&self, name: &str) {
        let (certificate, key) = certificate();
        self.write(&format!("{name}.crt"), &certificate);
        self.write(&format!("{name}.key"), &key);
    }

    fn read(&self, text: &str) -> Result<WebConfig> {
        let path = self.write("web.yml", text);
        WebConfig::read(&path, &mut Files::default())
    }

    fn error(&self, text: &str) -> String {
        format!("{:#}", self.read(text).expect_err(text))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn certificate() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

const TLS: &str = "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n";

#[test]
fn files_that_are_taken() {
    let folder = Folder::with_certificate();
    for text in [
        "",
        "# nothing\n",
        "{}",
        "tls_server_config:\n",
        "basic_auth_users: {}\n",
    ] {
        let config = folder.read(text).unwrap();
        assert!(config.tls.is_none() && config.users.is_empty(), "{text}");
        assert!(!config.asks_who());
    }
    let config = folder.read(TLS).unwrap();
    assert!(config.tls.is_some() && !config.asks_who());
    let all = format!(
        "{TLS}  client_ca_file: a.crt\n  client_auth_type: RequireAndVerifyClientCert\n  \
         client_allowed_sans: [scraper.example.org, '192.0.2.1', 'spiffe://example.org/scraper']\n  \
         min_version: TLS12\n  max_version: TLS13\n  \
         cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  \
         prefer_server_cipher_suites: false\n  curve_preferences: [X25519, CurveP256]\n\
         http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    \
         Strict-Transport-Security: max-age=31536000\n    X-XSS-Protection: ''\n\
         basic_auth_users:\n  scraper: {}\nrate_limit:\n  interval: 100ms\n  burst: 20\n",
        hash()
    );
    let config = folder.read(&all).unwrap();
    let tls = config.tls.as_ref().unwrap();
    assert!(tls.requires_certificate() && config.asks_who());
    assert!(!tls.config.ignore_client_order);
    assert_eq!(config.headers.len(), 2);
    assert_eq!(config.headers["x-frame-options"], "deny");
    assert!(config.users.check("scraper").is_user);
    let rate = config.rate.unwrap();
    assert_eq!((rate.interval.as_millis(), rate.burst), (100, 20));
    // Inline, as a template may have it.
    let (certificate, key) = certificate();
    let indented = |text: &str| text.replace('\n', "\n    ");
    let text = format!(
        "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n",
        indented(&certificate),
        indented(&key)
    );
    assert!(folder.read(&text).unwrap().tls.is_some());
}

#[test]
fn files_that_are_refused_with_a_reason() {
    let folder = Folder::with_certificate();
    folder.certify("b");
    folder.write("empty", "");
    let tls = |more: &str| format!("{TLS}  {more}\n");
    let headers = |more: &str| format!("http_server_config:\n  headers: {{{more}}}\n");
    for (text, reason) in [
        ("tls_config: {}".to_owned(), "tls_config"),
        (tls("cert_fil: x"), "cert_fil"),
        ("http_server_config: {http3: true}".to_owned(), "http3"),
        ("http_server_config: {http2: true}".to_owned(), "HTTP/2"),
        ("basic_auth_users: [a]".to_owned(), "line"),
        ("basic_auth_users: {a: b}".to_owned(), "bcrypt"),
        (
            format!("basic_auth_users: {{a: {0}, a: {0}}}", hash()),
            "duplicate",
        ),
        ("[".to_owned(), "web.yml"),
        (
            "tls_server_config: {key_file: a.key}".to_owned(),
            "cert_file",
        ),
        (
            "tls_server_config: {cert_file: a.crt}".to_owned(),
            "key_file",
        ),
        (
            "tls_server_config: {cert_file: none, key_file: a.key}".to_owned(),
            "none",
        ),
        (
            "tls_server_config: {cert_file: empty, key_file: a.key}".to_owned(),
            "no certificate",
        ),
        (
            "tls_server_config: {cert_file: a.key, key_file: a.key}".to_owned(),
            "no certificate",
        ),
        (
            "tls_server_config: {cert_file: a.crt, key_file: a.crt}".to_owned(),
            "no private key",
        ),
        (
            "tls_server_config: {cert_file: a.crt, key_file: b.key}".to_owned(),
            "the certificate and the key",
        ),
        (
            "tls_server_config: {cert_file: /dev/zero, key_file: b.key}".to_owned(),
            "no regular file",
        ),
        (tls("cert: x"), "not both"),
        (tls("min_version: TLS10"), "min_version"),
        (tls("max_version: TLS11"), "max_version"),
        (tls("min_version: '1.2'"), "TLS12 or TLS13"),
        (tls("min_version: TLS13\n  max_version: TLS12"), "greater"),
        (
            tls("cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]"),
            "TLS_RSA_WITH_RC4_128_SHA",
        ),
        (tls("curve_preferences: [CurveP521]"), "CurveP521"),
        (tls("client_auth_type: Maybe"), "client_auth_type"),
        (
            tls("client_auth_type: RequireAndVerifyClientCert"),
            "client_ca_file is missing",
        ),
        (tls("client_ca_file: a.crt"), "without client_auth_type"),
        (tls("client_allowed_sans: [a]"), "client_allowed_sans"),
        (
            tls("client_auth_type: RequireAnyClientCert\n  client_allowed_sans: []"),
            "nobody in",
        ),
        (
            tls("client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [me@example.org]"),
            "e-mail",
        ),
        (
            headers("X-Frame-Options: allow"),
            "X-Frame-Options is one of",
        ),
        (headers("Server: x"), "Server cannot be set"),
        (
            headers(r#"Content-Security-Policy: "a\nb""#),
            "no header may have",
        ),
        ("rate_limit: {burst: 1}".to_owned(), "interval"),
        ("rate_limit: {interval: 1s}".to_owned(), "burst"),
        (
            "rate_limit: {interval: soon, burst: 1}".to_owned(),
            "interval",
        ),
    ] {
        let error = folder.error(&text);
        assert!(error.contains(reason), "{text}: {error}");
        assert!(error.contains("web.yml"), "{text}: {error}");
    }
    // Not a word of what may be secret.
    for text in [
        "basic_auth_users:\n  me: [$2y$10$SECRET]\n",
        "basic_auth_users:\n  me: $2y$10$SECRET\n",
        "tls_server_config:\n  cert_file: a.crt\n  key: [SECRET]\n",
        "tls_server_config:\n  cert_file: a.crt\n  key: SECRET\n",
    ] {
        let error = folder.error(text);
        assert!(!error.contains("SECRET"), "{error}");
    }
}

#[test]
fn what_lets_more_happen_than_before_is_told() {
    let folder = Folder::with_certificate();
    let users = format!("basic_auth_users: {{me: {}}}\n", hash());
    let certified = "  client_ca_file: a.crt\n  client_auth_type: RequireAndVerifyClientCert\n";
    let any = "  client_auth_type: RequireAnyClientCert\n";
    let read = |text: &str| folder.read(text).unwrap();
    for (before, now, is_laxer) in [
        (String::new(), TLS.to_owned(), false),
        (TLS.to_owned(), String::new(), true),
        (users.clone(), String::new(), true),
        (users.clone(), format!("{users}{TLS}"), false),
        (format!("{TLS}{certified}"), TLS.to_owned(), true),
        (format!("{TLS}{certified}"), format!("{TLS}{any}"), true),
        (format!("{TLS}{any}"), format!("{TLS}{certified}"), false),
        (
            format!("{TLS}{any}  client_allowed_sans: [a]\n"),
            format!("{TLS}{any}"),
            true,
        ),
        (format!("{TLS}  min_version: TLS13\n"), TLS.to_owned(), true),
        (
            TLS.to_owned(),
            format!("{TLS}  min_version: TLS13\n"),
            false,
        ),
    ] {
        let found = read(&now).laxer_than(&read(&before));
        assert_eq!(found.is_some(), is_laxer, "{before} to {now}: {found:?}");
    }
}

/// A file's time of change is that of a moment ago, as if it had been written long before.
fn age(live: &Live) {
    // Nothing can set the time of change; what counts is that it is not now.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let _ = live.get();
}

#[test]
fn changes_are_seen_and_a_broken_file_changes_nothing() {
    let folder = Folder::with_certificate();
    let users = format!("basic_auth_users: {{me: {}}}\n", hash());
    let path = folder.write("web.yml", &format!("{TLS}{users}"));
    let live = Live::load(Some(&path)).unwrap();
    let first = live.get();
    age(&live);
    assert!(
        std::sync::Arc::ptr_eq(&first, &live.get()),
        "nothing changed"
    );
    assert!(live.is_current() && live.failures() == 0);

    // Another user, and another certificate.
    folder.write("web.yml", &format!("{TLS}{}", users.replace("me:", "you:")));
    let second = live.get();
    assert!(second.users.check("you").is_user && !second.users.check("me").is_user);
    folder.certify("a");
    let third = live.get();
    assert!(!std::sync::Arc::ptr_eq(&second, &third));

    // Broken in every way.
    for (name, text) in [
        ("web.yml", "tls_server_config: ["),
        ("web.yml", ""),
        ("web.yml", TLS),
        ("a.key", "no key"),
    ] {
        let good = fs::read_to_string(folder.0.join(name)).unwrap();
        folder.write(name, text);
        let failures = live.failures();
        let now = live.get();
        assert!(
            now.tls.is_some() && now.users.check("you").is_user,
            "{text}"
        );
        assert!(live.failures() > failures && !live.is_current(), "{text}");
        folder.write(name, &good);
        let now = live.get();
        assert!(live.is_current() && now.users.check("you").is_user);
    }
    fs::remove_file(&path).unwrap();
    assert!(live.get().tls.is_some() && !live.is_current());
}

#[test]
fn folders_are_those_of_names_and_of_what_they_lead_to() {
    let folder = Folder::new();
    let elsewhere = Folder::with_certificate();
    symlink(elsewhere.0.join("a.crt"), folder.0.join("a.crt")).unwrap();
    symlink(elsewhere.0.join("a.key"), folder.0.join("a.key")).unwrap();
    let path = folder.write("web.yml", TLS);
    let live = Live::load(Some(&path)).unwrap();
    let folders = live.folders();
    assert!(
        folders.contains(&folder.0) && folders.contains(&elsewhere.0),
        "{folders:?}"
    );
    assert!(live.unreadable().is_empty());
    fs::remove_file(elsewhere.0.join("a.key")).unwrap();
    assert_eq!(live.unreadable().len(), 1);
    assert!(Live::none().folders().is_empty() && !Live::none().has_file());
}

/// The folder has nothing in it, so that all that is read is the text.
#[test]
fn fuzz_web_config() {
    bolero::check!(name = "web_config").for_each(|text: &[u8]| {
        let Ok(text) = std::str::from_utf8(text) else {
            return;
        };
        let nowhere = Path::new("/nonexistent");
        if let Ok(config) = WebConfig::of(text, nowhere, &mut Files::default()) {
            // No certificate can have been read but an inline one.
            assert!(config.tls.is_none() || text.contains("BEGIN"), "{text}");
            assert!(config.users.is_empty() || text.contains("$2"), "{text}");
        }
    });
}
