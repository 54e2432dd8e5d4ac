//! `top`, `doctor` and `selftest` ask an agent that has TLS and users, and one behind a Unix socket.

use std::process::{Command, Output};

use super::{
    Test,
    agent::{Agent, binary},
    requirements::Requirement::{Localhost, Root},
    web_setup::{Authority, Folder, PASSWORD, TLS, USER, url, users},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "web_clients::they_reach_an_agent_with_tls_certificates_and_users",
        needs: &[Root, Localhost],
        run: they_reach_an_agent_with_tls_certificates_and_users,
    },
    Test {
        name: "web_clients::they_reach_an_agent_behind_a_unix_socket",
        needs: &[Root],
        run: they_reach_an_agent_behind_a_unix_socket,
    },
];

fn run(args: &[&str]) -> Output {
    Command::new(binary())
        .args(args)
        .output()
        .expect("the agent's binary starts")
}

fn text(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn they_reach_an_agent_with_tls_certificates_and_users() {
    let folder = Folder::with_server();
    folder.certify("me", &Authority::new("clients"), &["me"]);
    let config = format!(
        "{TLS}  client_ca_file: me-ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n{}",
        users(4)
    );
    let file = folder.write("web.yml", &config);
    let agent = Agent::start(&["--web.config.file", &file]);
    let at = url(agent.address(), "");
    let ca = folder.path("server-ca.crt");
    let credentials = folder.write("credentials", &format!("{USER}:{PASSWORD}\n"));
    let (certificate, key) = (folder.path("me.crt"), folder.path("me.key"));
    let own = ["--url.cert-file", &certificate, "--url.key-file", &key];
    let all = [
        &[
            "--url",
            &at,
            "--url.ca-file",
            &ca,
            "--url.credentials-file",
            &credentials,
        ] as &[&str],
        &own,
    ]
    .concat();
    let top = run(&[&["top", "--json", "--interval", "100ms"], all.as_slice()].concat());
    assert!(top.status.success(), "{}", text(&top));
    let doctor = run(&[&["doctor"], all.as_slice()].concat());
    let said = text(&doctor);
    assert!(
        !said.contains("answers to /readyz") && !said.contains("no agent answers"),
        "{said}"
    );
    let selftest = run(&[&["selftest", "--dry-run"], all.as_slice()].concat());
    assert!(selftest.status.success(), "{}", text(&selftest));
    assert!(text(&selftest).contains(&at), "{}", text(&selftest));

    let wrong = folder.write("wrong", &format!("{USER}:wrong\n"));
    let unusable = folder.write("unusable", "no colon\n");
    let top = ["top", "--json", "--interval", "100ms", "--url", &at];
    for (more, reason) in [
        (vec!["--url.ca-file", &certificate], "ertificate"),
        (vec!["--url.ca-file", &ca], "ertificate"),
        (
            [&["--url.ca-file", &ca] as &[&str], &own].concat(),
            "HTTP 401",
        ),
        (
            [
                &["--url.ca-file", &ca, "--url.credentials-file", &wrong] as &[&str],
                &own,
            ]
            .concat(),
            "HTTP 401",
        ),
        (
            [
                &["--url.ca-file", &ca, "--url.credentials-file", &unusable] as &[&str],
                &own,
            ]
            .concat(),
            "USER:PASSWORD",
        ),
        (vec!["--url.ca-file", &key], "no certificate"),
    ] {
        let output = run(&[&top as &[&str], &more].concat());
        assert!(!output.status.success(), "{more:?}");
        assert!(
            text(&output).contains(reason),
            "{more:?}: {}",
            text(&output)
        );
        assert!(
            !text(&output).contains("wrong"),
            "a password: {}",
            text(&output)
        );
    }
    // A key of another certificate.
    let other_key = folder.path("server.key");
    let mixed = [
        &top as &[&str],
        &["--url.ca-file", &ca, "--url.cert-file", &certificate],
        &["--url.key-file", &other_key],
    ]
    .concat();
    let output = run(&mixed);
    assert!(
        text(&output).contains("--url.key-file"),
        "{}",
        text(&output)
    );
}

fn they_reach_an_agent_behind_a_unix_socket() {
    let folder = Folder::new();
    let address = format!("unix:{}", folder.path("a.sock"));
    let file = folder.write("web.yml", &users(4));
    let _agent = Agent::start(&["--web.listen-address", &address, "--web.config.file", &file]);
    let credentials = folder.write("credentials", &format!("{USER}:{PASSWORD}"));
    let all = ["--url", &address, "--url.credentials-file", &credentials];
    for command in [
        &["top", "--json", "--interval", "100ms"] as &[&str],
        &["selftest", "--dry-run"],
    ] {
        let output = run(&[command, &all].concat());
        assert!(output.status.success(), "{command:?}: {}", text(&output));
        let output = run(&[command, &["--url", &address]].concat());
        assert!(
            text(&output).contains("HTTP 401"),
            "{command:?}: {}",
            text(&output)
        );
    }
    let nobody = folder.path("nobody.sock");
    let output = run(&["top", "--once", "--url", &format!("unix:{nobody}")]);
    assert!(!output.status.success());
    assert!(text(&output).contains(&nobody), "{}", text(&output));
}
