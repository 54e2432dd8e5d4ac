//! A real Prometheus looks at the agent.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use super::{
    Test,
    agent::Agent,
    events::{Child, Event, kvm_guest::Guest},
    prometheus_server::Server,
    requirements::{
        self,
        Requirement::{AlignmentChecks, Kvm, Prometheus, Root},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "prometheus::promtool_has_nothing_to_say",
        needs: &[Root, Kvm, Prometheus, AlignmentChecks],
        run: promtool_has_nothing_to_say,
    },
    Test {
        name: "prometheus::a_query_answers_with_what_was_made",
        needs: &[Root, Kvm, Prometheus, AlignmentChecks],
        run: a_query_answers_with_what_was_made,
    },
];

/// A process with 1,234 alignment checks and a VM with 567 in its guest.
fn make_events() -> [Child; 2] {
    let process = Event::AlignmentCheck {
        count: 1234,
        threads: 2,
    };
    let guest = Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count: 567,
        vcpus: 1,
    };
    let mut children = [
        Child::spawn(&process, "prom-ac"),
        Child::spawn(&guest, "prom-guest"),
    ];
    for child in &mut children {
        child.run();
    }
    children
}

fn promtool_has_nothing_to_say() {
    let agent = Agent::start(&[]);
    let _children = make_events();
    let promtool = requirements::promtool().expect("checked");
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let exposition = agent.get("/metrics");
    check
        .stdin
        .take()
        .expect("stdin is a pipe")
        .write_all(exposition.as_bytes())
        .expect("promtool reads");
    let output = check.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"", "{output:?}");
    assert_eq!(output.stderr, b"", "{output:?}");
}

fn a_query_answers_with_what_was_made() {
    let agent = Agent::start(&[]);
    let server = Server::scraping(&agent, &[]);
    let [process, guest] = make_events();
    server.wait_for(r#"up{job="splitlock"}"#, 1.0);
    server.wait_for(
        &format!(
            r#"splitlock_process_alignment_checks_total{{comm="prom-ac",pid="{}"}}"#,
            process.pid()
        ),
        1234.0,
    );
    let id = format!("{}-.*", guest.pid());
    server.wait_for(
        &format!(r#"splitlock_vm_ac_injected_total{{vm="prom-guest",id=~"{id}"}}"#),
        567.0,
    );
    server.wait_for(
        &format!(
            r#"splitlock_vm_userspace_exits_total{{vm="prom-guest",id=~"{id}",reason="shutdown"}}"#
        ),
        567.0,
    );
    server.wait_for("sum(splitlock_host_traps_total)", 0.0);
}
