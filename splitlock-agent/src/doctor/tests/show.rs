//! How a report is shown.

use serde_json::Value;

use super::{
    super::{Report, facts::AgentState, text},
    fixtures::{intel, unprivileged, weighed},
    hosts::hosts,
};

#[test]
fn the_text_fits_a_terminal_and_begins_with_the_verdict() {
    for (name, facts, ..) in hosts() {
        let report = Report::of(facts);
        let plain = text::render(&report, false);
        assert_eq!(plain.lines().next(), Some(report.verdict.sentence.as_str()));
        assert!(!plain.contains('\x1b'), "{name}");
        for line in plain.lines() {
            let is_command = line.trim_start().starts_with("# ");
            assert!(
                is_command || line.chars().count() <= 80,
                "{name}: {line:?} is {} wide",
                line.chars().count()
            );
            assert_eq!(line.trim_end(), line, "{name}");
        }
        for finding in &report.findings {
            assert!(plain.contains(finding.severity.name()), "{name}");
            if let Some(command) = &finding.command {
                assert!(plain.contains(&format!("# {command}\n")), "{name}");
            }
        }
        // Colour changes nothing else.
        let coloured = text::render(&report, true);
        assert!(coloured.contains("\x1b["), "{name}");
        assert_eq!(uncoloured(&coloured), plain, "{name}");
    }
}

fn uncoloured(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain + rest
}

#[test]
fn what_others_say_cannot_steer_the_terminal() {
    let mut facts = intel();
    let hostile = "\x1b[2J\u{202e}x\r\ny";
    facts.agent.state = AgentState::Unhealthy(hostile.to_owned());
    facts.hooks.rows[0].refused = vec![hostile.to_owned()];
    facts.kernel.parameter = Some(hostile.to_owned());
    let text = text::render(&Report::of(facts), false);
    assert!(text.contains(r"\x1b[2J"));
    assert!(!text.contains(['\x1b', '\r', '\u{202e}']));
}

#[test]
fn the_json_has_its_version_and_its_names() {
    let report = Report::of(weighed(intel(), Some("ratelimit:10")));
    let json: Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["verdict"]["answer"], "partly");
    assert_eq!(json["verdict"]["exit_status"], 1);
    assert_eq!(json["verdict"]["user"], true);
    assert_eq!(json["verdict"]["guest"], false);
    assert_eq!(json["findings"][0]["id"], "guests_unseen");
    assert_eq!(json["findings"][0]["severity"], "warning");
    let facts = &json["facts"];
    assert_eq!(facts["detection"]["mode"], "ratelimit");
    assert_eq!(facts["detection"]["source"], "memory");
    assert_eq!(facts["detection"]["armed"], "bus_lock");
    assert_eq!(facts["hooks"]["known"], "attached");
    assert_eq!(facts["hooks"]["rows"][0]["probe"], "signal_generate");
    assert_eq!(facts["tracefs"]["state"], "mounted");
    assert_eq!(facts["agent"]["state"]["is"], "healthy");
    assert_eq!(facts["btf"]["ok"], true);
    assert_eq!(facts["kernel"]["boot_loader"], "update_grub");
    let unknown = Report::of(unprivileged(intel()));
    let json: Value = serde_json::to_value(&unknown).unwrap();
    assert_eq!(json["verdict"]["user"], Value::Null);
    assert_eq!(json["facts"]["hooks"]["known"], "planned");
}
