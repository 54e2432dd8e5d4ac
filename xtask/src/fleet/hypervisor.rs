//! The host that is shown: what runs on it, and which notification must come of that.

use anyhow::{Result, ensure};

use super::notification::{Alert, Notification};

/// The host's name.
pub const NAME: &str = "hv1";
/// The VM whose guest locks the bus.
pub const OFFENDER: Vm = Vm {
    name: "web1",
    id: "0c8f3a52-7d1e-4c7b-9a39-5f2f1c0a7e11",
};
/// A VM that does not.
const NEIGHBOUR: Vm = Vm {
    name: "db1",
    id: "0c8f3a52-7d1e-4c7b-9a39-5f2f1c0a7e12",
};
/// A service that does too.
const SERVICE: &str = "legacy-report";
/// Split locks per second: a VM that is over the threshold of a critical alert when it has gone on for
/// five minutes, and long before over that of a warning; a service that is over the only threshold.
const VM_RATE: u32 = 25;
const SERVICE_RATE: u32 = 5;

/// The alert that this is about.
const ALERT: &str = "SplitLockGuestOffends";

/// A VM.
pub struct Vm {
    /// As its owner calls it.
    pub name: &'static str,
    /// Its UUID.
    pub id: &'static str,
}

/// Words for `real_events hypervisor`.
pub fn tenants() -> Vec<String> {
    let (vm, service) = (VM_RATE.to_string(), SERVICE_RATE.to_string());
    let words = [
        &["vm", OFFENDER.name, OFFENDER.id, &vm],
        &["vm", NEIGHBOUR.name, NEIGHBOUR.id, "0"],
        &["service", SERVICE, &service][..],
    ];
    words.concat().into_iter().map(str::to_owned).collect()
}

/// What runs there, in words.
pub fn story() -> String {
    format!(
        "VM {} makes {VM_RATE} split locks a second, VM {} none, {SERVICE}.service {SERVICE_RATE}",
        OFFENDER.name, NEIGHBOUR.name
    )
}

/// Whether this notification is the one that names the offender.
///
/// # Errors
/// It should be, but something is wrong with it; or it accuses somebody else.
pub fn is_proof(notification: &Notification) -> Result<bool> {
    let mut found = false;
    for alert in &notification.alerts {
        let accused = alert.label("vm");
        ensure!(
            accused != NEIGHBOUR.name,
            "{} is accused, who does nothing:\n{alert}",
            NEIGHBOUR.name
        );
        if alert.name() == ALERT && alert.status == "firing" {
            examine(alert)?;
            found = true;
        }
    }
    Ok(found)
}

fn examine(alert: &Alert) -> Result<()> {
    let description = alert.annotation("description");
    let (runbook, dashboard) = (
        alert.annotation("runbook_url"),
        alert.annotation("dashboard_url"),
    );
    let names_id = format!("var-id={}", OFFENDER.id);
    for (what, holds) in [
        ("label vm", alert.label("vm") == OFFENDER.name),
        ("label id", alert.label("id") == OFFENDER.id),
        (
            "severity",
            ["warning", "critical"].contains(&alert.label("severity")),
        ),
        (
            "VM in the summary",
            alert.annotation("summary").contains(OFFENDER.name),
        ),
        ("host in the description", description.contains(NAME)),
        ("id in the description", description.contains(OFFENDER.id)),
        (
            "runbook_url",
            is_url(runbook) && runbook.ends_with(&format!("/{ALERT}.md")),
        ),
        (
            "dashboard_url",
            is_url(dashboard) && dashboard.contains(&names_id),
        ),
    ] {
        ensure!(holds, "{ALERT}: {what} is missing or wrong:\n{alert}");
    }
    Ok(())
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(changes: &[(&str, &str)]) -> Notification {
        let mut alert = serde_json::json!({
            "status": "firing",
            "labels": {"alertname": ALERT, "severity": "warning", "vm": "web1", "id": OFFENDER.id},
            "annotations": {
                "summary": "VM web1 locks the bus",
                "description": format!("VM web1 (id {}): hv1 (3/s)", OFFENDER.id),
                "runbook_url": "https://a.example/SplitLockGuestOffends.md",
                "dashboard_url": format!("https://b.example/d/vm?var-id={}", OFFENDER.id),
            },
        });
        for (pointer, value) in changes {
            *alert.pointer_mut(pointer).unwrap() = (*value).into();
        }
        let body = serde_json::json!({"alerts": [alert]}).to_string();
        Notification::parse("/ticket", body.as_bytes()).unwrap()
    }

    #[test]
    fn the_offender_is_named() {
        assert!(is_proof(&notification(&[])).unwrap());
    }

    #[test]
    fn other_alerts_prove_nothing() {
        for change in [("/labels/alertname", "Other"), ("/status", "resolved")] {
            assert!(!is_proof(&notification(&[change])).unwrap(), "{change:?}");
        }
    }

    #[test]
    fn what_is_wrong_or_missing_is_an_error() {
        for change in [
            ("/labels/vm", ""),
            ("/labels/vm", "db1"),
            ("/labels/id", "4711"),
            ("/labels/severity", ""),
            ("/annotations/summary", "a VM locks the bus"),
            ("/annotations/description", "somewhere"),
            ("/annotations/runbook_url", ""),
            ("/annotations/runbook_url", "/SplitLockGuestOffends.md"),
            ("/annotations/dashboard_url", "https://b.example/d/vm"),
        ] {
            assert!(is_proof(&notification(&[change])).is_err(), "{change:?}");
        }
    }
}
