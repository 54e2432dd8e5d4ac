//! The agent that runs here already, asked as any client asks it.

use std::time::Duration;

use serde_json::Value;

use super::super::facts::{AgentRights, AgentState, AgentView, HookRow, RunningAgent};
use crate::{
    cli::remote::{DEFAULT_URL, RemoteOptions},
    remote::{Remote, UNAUTHORIZED},
    subjects::names::printable,
};

/// For an answer: an agent that has none within 10 s says so itself, but nobody waits here that long.
const PATIENCE: Duration = Duration::from_secs(3);

pub fn ask(url: Option<&str>, options: &RemoteOptions) -> RunningAgent {
    let given = url.unwrap_or(DEFAULT_URL);
    let mut found = RunningAgent {
        url: printable(given.trim_end_matches('/').as_bytes()),
        is_expected: url.is_some(),
        state: AgentState::Healthy,
        view: None,
    };
    let remote = match Remote::new(given, options, PATIENCE) {
        Ok(remote) => remote,
        Err(error) => {
            found.state = AgentState::Absent(printable(format!("{error:#}").as_bytes()));
            return found;
        }
    };
    // Not /healthz, which keeps the reason from those who are no users.
    found.state = match remote.get("/readyz") {
        Ok((200, _)) => AgentState::Healthy,
        Ok((401, _)) => AgentState::Unhealthy(UNAUTHORIZED.to_owned()),
        Ok((status, text)) => AgentState::Unhealthy(format!("{status} {}", first_line(&text))),
        Err(failure) => AgentState::Absent(failure.text()),
    };
    if !matches!(found.state, AgentState::Absent(_)) {
        found.view = remote
            .get("/api/v1/snapshot")
            .ok()
            .filter(|(status, _)| *status == 200)
            .and_then(|(_, text)| view(&serde_json::from_slice(&text).ok()?));
    }
    found
}

fn first_line(text: &[u8]) -> String {
    printable(text.split(|byte| *byte == b'\n').next().unwrap_or_default())
}

/// What matters of a snapshot; `None` where it is none.
fn view(snapshot: &Value) -> Option<AgentView> {
    let host = snapshot.get("host")?;
    let text = |value: &Value| printable(value.as_str().unwrap_or_default().as_bytes());
    let texts = |value: &Value| {
        value
            .as_array()
            .map(|values| values.iter().map(text).collect())
            .unwrap_or_default()
    };
    Some(AgentView {
        kernel: text(&host["kernel"]),
        mode: text(&host["detection_mode"]),
        source: text(&host["detection_source"]),
        sees_user: host["sees"]["user"].as_bool(),
        sees_guest: host["sees"]["guest"].as_bool(),
        reported: snapshot["host_traps"].as_array()?.iter().any(|traps| {
            traps["outcome"] == "reported" && traps["count"].as_u64().is_some_and(|n| n > 0)
        }),
        hooks: snapshot["probes"]
            .as_array()?
            .iter()
            .map(|probe| HookRow {
                probe: text(&probe["probe"]),
                via: probe["via"].as_str().map(|via| printable(via.as_bytes())),
                counts: text(&probe["counts"]),
                planned: vec![],
                refused: texts(&probe["refused"]),
            })
            .collect(),
        rights: snapshot.get("privileges").map(|rights| AgentRights {
            dropped: rights["dropped"].as_bool().unwrap_or(false),
            user: rights["user"].as_u64().unwrap_or(0),
            capabilities: text(&rights["capabilities"]),
            kept: texts(&rights["kept"]),
            down: rights["helpers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|helper| helper["up"] == false)
                .map(|helper| text(&helper["helper"]))
                .collect(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_snapshot_tells_what_the_agent_sees() {
        let found = view(&json!({
            "host": {
                "kernel": "6.12", "detection_mode": "warn", "detection_source": "memory",
                "sees": {"user": true}
            },
            "host_traps": [
                {"origin": "guest", "trap": "bus_lock", "outcome": "reported", "count": 1}
            ],
            "probes": [
                {"probe": "kvm_exit", "via": null, "counts": "none", "refused": ["a: \u{1b}b"]}
            ]
        }))
        .unwrap();
        assert_eq!((found.sees_user, found.sees_guest), (Some(true), None));
        assert!(found.reported);
        assert_eq!(found.hooks[0].via, None);
        assert_eq!(found.hooks[0].refused, [r"a: \x1bb"]);
        assert!(view(&json!({"status": "ok"})).is_none());
    }

    #[test]
    fn where_nobody_listens_there_is_no_agent() {
        let nobody = ask(Some("http://127.0.0.1:1/"), &RemoteOptions::default());
        assert!(matches!(nobody.state, AgentState::Absent(_)));
        assert_eq!(nobody.url, "http://127.0.0.1:1");
        assert!(nobody.view.is_none() && nobody.is_expected);
    }

    #[test]
    fn fuzz_agent_view() {
        bolero::check!(name = "agent_view").for_each(|text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            let is_harmless = |text: &str| text == printable(text.as_bytes());
            assert!(is_harmless(&first_line(text.as_bytes())));
            let Some(found) = serde_json::from_str(&text).ok().as_ref().and_then(view) else {
                return;
            };
            let AgentView {
                kernel,
                mode,
                source,
                hooks,
                ..
            } = found;
            assert!([kernel, mode, source].iter().all(|text| is_harmless(text)));
            for HookRow {
                probe,
                via,
                counts,
                planned: _,
                refused,
            } in hooks
            {
                let texts = [probe, counts].into_iter().chain(via).chain(refused);
                assert!(texts.into_iter().all(|text| is_harmless(&text)));
            }
        });
    }
}
