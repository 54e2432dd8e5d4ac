//! The web configuration at a real agent: TLS, users, headers, and their renewal.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Test,
    agent::{Agent, binary},
    prometheus_server::Server,
    requirements::Requirement::{Curl, Openssl, Prometheus, Root},
    web_setup::{Authority, Folder, Got, PASSWORD, TLS, USER, curl, url, users},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "web::tls_is_all_that_is_spoken_and_not_below_its_version",
        needs: &[Root, Curl, Openssl],
        run: tls_is_all_that_is_spoken_and_not_below_its_version,
    },
    Test {
        name: "web::clients_show_a_certificate_where_they_have_to",
        needs: &[Root, Curl],
        run: clients_show_a_certificate_where_they_have_to,
    },
    Test {
        name: "web::no_path_has_data_for_nobody",
        needs: &[Root, Curl],
        run: no_path_has_data_for_nobody,
    },
    Test {
        name: "web::changes_are_taken_over_and_broken_ones_are_not",
        needs: &[Root, Curl],
        run: changes_are_taken_over_and_broken_ones_are_not,
    },
    Test {
        name: "web::check_says_what_is_wrong",
        needs: &[],
        run: check_says_what_is_wrong,
    },
    Test {
        name: "web::serving_beyond_the_host_is_warned_of",
        needs: &[Root],
        run: serving_beyond_the_host_is_warned_of,
    },
    Test {
        name: "web::prometheus_scrapes_with_tls_and_a_user",
        needs: &[Root, Prometheus],
        run: prometheus_scrapes_with_tls_and_a_user,
    },
];

fn start(folder: &Folder, config: &str) -> Agent {
    let file = folder.write("web.yml", config);
    Agent::start(&["--web.config.file", &file])
}

fn openssl(agent: &Agent, version: &str) -> bool {
    Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &agent.address().to_string(),
            version,
        ])
        // Else it is openssl itself that refuses what is old.
        .args(["-cipher", "ALL:@SECLEVEL=0"])
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs")
        .status
        .success()
}

fn tls_is_all_that_is_spoken_and_not_below_its_version() {
    let folder = Folder::with_server();
    let agent = start(&folder, TLS);
    let ca = folder.path("server-ca.crt");
    let metrics = url(agent.address(), "/metrics");
    let got = curl(&metrics, &["--cacert", &ca, "--http2"]);
    assert_eq!(got.status, 200, "{got:?}");
    // HTTP/2 was offered.
    assert!(got.head.starts_with("http/1.1 "), "{got:?}");
    assert!(got.body.contains("splitlock_build_info"));
    // Who does not know the CA does not trust it.
    assert_eq!(curl(&metrics, &[]).status, 0);
    let plain = curl(&format!("http://{}/metrics", agent.address()), &[]);
    assert!(
        plain.status != 200 && !plain.body.contains("splitlock"),
        "{plain:?}"
    );
    for (version, is_spoken) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        assert_eq!(openssl(&agent, version), is_spoken, "{version}");
    }
    // At the next connection.
    folder.write("web.yml", &format!("{TLS}  min_version: TLS13\n"));
    for (version, is_spoken) in [("-tls1_2", false), ("-tls1_3", true)] {
        assert_eq!(openssl(&agent, version), is_spoken, "{version}");
    }
    let refused = curl(&metrics, &["--cacert", &ca]);
    let refusals = r#"splitlock_web_refused_total{cause="tls_handshake"} "#;
    let count: u64 = refused
        .body
        .lines()
        .find_map(|line| line.strip_prefix(refusals)?.parse().ok())
        .expect("a count");
    assert!(count >= 3, "{count}");
}

fn clients_show_a_certificate_where_they_have_to() {
    let folder = Folder::with_server();
    let ours = Authority::new("scrapers");
    folder.certify("right", &ours, &["prometheus.example.org"]);
    folder.certify("wild", &ours, &["*.example.org"]);
    folder.certify(
        "foreign",
        &Authority::new("others"),
        &["prometheus.example.org"],
    );
    let config = format!(
        "{TLS}  client_ca_file: right-ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n"
    );
    let agent = start(&folder, &config);
    let ca = folder.path("server-ca.crt");
    let ask = |who: &str| -> Got {
        let (certificate, key) = (
            folder.path(&format!("{who}.crt")),
            folder.path(&format!("{who}.key")),
        );
        let mut args = vec!["--cacert", &ca];
        if !who.is_empty() {
            args.extend(["--cert", &certificate, "--key", &key]);
        }
        curl(&url(agent.address(), "/healthz"), &args)
    };
    for (who, status) in [("", 0), ("foreign", 0), ("right", 200), ("wild", 200)] {
        assert_eq!(ask(who).status, status, "{who}");
    }
    let named = |name: &str| format!("{config}  client_allowed_sans: [{name}]\n");
    folder.write("web.yml", &named("prometheus.example.org"));
    for (who, status) in [("", 0), ("foreign", 0), ("right", 200), ("wild", 0)] {
        assert_eq!(ask(who).status, status, "{who}");
    }
    folder.write("web.yml", &named("127.0.0.2"));
    assert_eq!(ask("right").status, 0);
    folder.write("web.yml", &named("127.0.0.1"));
    assert_eq!(ask("right").status, 200);
}

/// Every path, and some that are none.
const PATHS: [&str; 9] = [
    "/",
    "/metrics",
    "/api/v1/snapshot",
    "/api/v1/subjects/1-1",
    "/api/v1/subjects/x",
    "/readyz",
    "/healthz/",
    "//healthz",
    "/nothing",
];

fn no_path_has_data_for_nobody() {
    let folder = Folder::new();
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    \
                   X-Content-Type-Options: nosniff\n    Strict-Transport-Security: max-age=60\n";
    let agent = start(&folder, &format!("{}{headers}", users(5)));
    let base = format!("http://{}", agent.address());
    let ask = |path: &str, args: &[&str]| {
        let got = curl(&format!("{base}{path}"), args);
        for header in [
            "\r\nx-frame-options: deny",
            "\r\nx-content-type-options: nosniff",
            "\r\nstrict-transport-security: max-age=60",
        ] {
            assert!(got.head.contains(header), "{path} {args:?}: {got:?}");
        }
        assert!(!got.head.contains("\r\nserver:"), "{got:?}");
        got
    };
    let right = format!("{USER}:{PASSWORD}");
    for path in PATHS {
        for who in [
            &[] as &[&str],
            &["--user", "scraper:wrong"],
            &["--user", "nobody:correct horse"],
            &["--user", ":"],
            &["--header", "Authorization: Bearer x"],
            &["--head"],
        ] {
            let got = ask(path, who);
            // The path is as it is: curl has no part in that.
            assert_eq!(got.status, 401, "{path} {who:?}: {got:?}");
            assert!(
                got.head.contains("\r\nwww-authenticate: basic realm="),
                "{got:?}"
            );
            let told = format!("{}{}", got.head, got.body).to_lowercase();
            assert!(!told.contains("splitlock"), "{got:?}");
            assert!(!told.contains(env!("CARGO_PKG_VERSION")), "{got:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
    // The one path that is open says no more than that.
    let open = ask("/healthz", &[]);
    assert_eq!((open.status, open.body.as_str()), (200, "ok\n"));
    assert_eq!(ask("/healthz?x=1", &["--user", "a:b"]).status, 200);
    for (path, status) in [
        ("/", 200),
        ("/metrics", 200),
        ("/api/v1/snapshot", 200),
        ("/readyz", 200),
        ("/api/v1/subjects/x", 404),
        ("/nothing", 404),
    ] {
        assert_eq!(ask(path, &["--user", &right]).status, status, "{path}");
    }
    for method in [
        "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "X",
    ] {
        let got = ask("/metrics", &["--user", &right, "--request", method]);
        assert_eq!(got.status, 405, "{method}: {got:?}");
        assert!(got.head.contains("\r\nallow: get, head"), "{got:?}");
    }
    let got = ask(
        "/metrics",
        &["--user", &right, "--data", "a=b", "--request", "GET"],
    );
    assert_eq!(got.status, 400, "{got:?}");
}

fn changes_are_taken_over_and_broken_ones_are_not() {
    let folder = Folder::with_server();
    let agent = start(&folder, &format!("{TLS}{}", users(4)));
    let right = format!("{USER}:{PASSWORD}");
    let ask = |user: &str| {
        let ca = folder.path("server-ca.crt");
        curl(
            &url(agent.address(), "/metrics"),
            &["--cacert", &ca, "--user", user],
        )
    };
    assert_eq!(ask(&right).status, 200);
    // Renewed, from another CA: the old one would not be trusted.
    folder.certify("server", &Authority::new("next CA"), &["localhost"]);
    let got = ask(&right);
    assert_eq!(got.status, 200, "{got:?}");
    // Another user; the one before is out at once, also where it was known.
    folder.write(
        "web.yml",
        &format!("{TLS}{}", users(4).replace(USER, "another")),
    );
    assert_eq!(ask(&right).status, 401);
    assert_eq!(ask(&right.replace(USER, "another")).status, 200);
    // Another password of the same user.
    let hash = bcrypt::hash("next", 4).expect("a hash");
    folder.write(
        "web.yml",
        &format!("{TLS}basic_auth_users: {{another: {hash}}}\n"),
    );
    assert_eq!(ask(&right.replace(USER, "another")).status, 401);
    assert_eq!(ask("another:next").status, 200);
    for broken in ["tls_server_config: [", "", TLS, "basic_auth_users: {a: b}"] {
        folder.write("web.yml", broken);
        let got = ask("another:next");
        assert_eq!(got.status, 200, "{broken}: {got:?}");
        assert_eq!(ask("another:wrong").status, 401, "{broken}");
        assert!(
            got.body
                .contains("splitlock_web_config_last_reload_success 0\n"),
            "{broken}"
        );
        assert!(
            !got.body
                .contains("splitlock_web_config_reload_failures_total 0\n")
        );
    }
    // Once for each, however often it was asked.
    let log = agent.log();
    let told = log.iter().filter(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "WARN" && message.contains("cannot be read again")
    });
    assert_eq!(told.count(), 4, "{log:#?}");
    folder.write(
        "web.yml",
        &format!("{TLS}basic_auth_users: {{another: {hash}}}\n"),
    );
    let got = ask("another:next");
    assert!(
        got.body
            .contains("splitlock_web_config_last_reload_success 1\n")
    );
}

fn check_says_what_is_wrong() {
    let folder = Folder::with_server();
    let check = |config: &str, args: &[&str]| {
        let file = folder.write("web.yml", config);
        let output = Command::new(binary())
            .args(["run", "--check", "--web.config.file", &file])
            .args(args)
            .output()
            .expect("the agent's binary starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let good = format!("{TLS}{}", users(4));
    assert_eq!(check(&good, &[]), (Some(0), String::new()));
    let socket = folder.path("a.sock");
    let listen = ["--web.listen-address", &format!("unix:{socket}")];
    assert_eq!(check(&good, &listen).0, Some(0));
    assert!(!super::web_setup::exists(&socket), "it listened");
    let certified = format!("{TLS}  client_auth_type: RequireAnyClientCert\n");
    for (config, args, reason) in [
        (
            "tls_server_config: {cert_file: none.crt}",
            &[] as &[&str],
            "none.crt",
        ),
        ("users: {}", &[], "users"),
        (&certified, &listen, "client_auth_type"),
    ] {
        let (status, text) = check(config, args);
        assert_eq!(status, Some(1), "{config}: {text}");
        assert!(text.contains(reason), "{config}: {text}");
    }
    let (status, _) = check(&good, &["--web.listen-address", "x"]);
    assert_eq!(status, Some(2));
}

fn serving_beyond_the_host_is_warned_of() {
    let folder = Folder::with_server();
    let warnings = |address: &str, config: &str| -> Vec<String> {
        let file = folder.write("web.yml", config);
        let agent = Agent::start_on(address, &["--web.config.file", &file]);
        let log = agent.log();
        let warned = log.iter().filter(|line| line["level"] == "WARN");
        warned
            .filter_map(|line| line["message"].as_str())
            .filter(|text| text.contains("beyond this host"))
            .map(str::to_owned)
            .collect()
    };
    let both = warnings("0.0.0.0:0", "");
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(warnings("127.0.0.1:0", "").is_empty());
    let users = users(4);
    assert!(warnings("0.0.0.0:0", &format!("{TLS}{users}")).is_empty());
    let tls = warnings("0.0.0.0:0", &users);
    assert!(tls.len() == 1 && tls[0].contains("TLS"), "{tls:?}");
    let who = warnings("0.0.0.0:0", TLS);
    assert!(who.len() == 1 && who[0].contains("users"), "{who:?}");
}

fn prometheus_scrapes_with_tls_and_a_user() {
    let folder = Folder::with_server();
    let agent = start(&folder, &format!("{TLS}{}", users(10)));
    let how = format!(
        ", scheme: https, basic_auth: {{username: {USER}, password: '{PASSWORD}'}}, \
         tls_config: {{ca_file: '{}', server_name: localhost}}",
        folder.path("server-ca.crt")
    );
    let server = Server::scraping_as(&agent, &how, &[]);
    server.wait_for(r#"up{job="splitlock"}"#, 1.0);
    server.wait_for(r#"splitlock_web_refused_total{cause="credentials"}"#, 0.0);
    // One that is told the wrong password has nothing.
    let wrong = how.replace(PASSWORD, "wrong");
    drop(server);
    let server = Server::scraping_as(&agent, &wrong, &[]);
    server.wait_for(r#"up{job="splitlock"}"#, 0.0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(server.query("count(splitlock_build_info)"), None);
        thread::sleep(Duration::from_millis(200));
    }
}
