//! What Alertmanager's webhook says.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One notification: the alerts of a group.
#[derive(Debug)]
pub struct Notification {
    /// The path that it was sent to, as `page`.
    pub receiver: String,
    /// All alerts of the group, also those that were told before.
    pub alerts: Vec<Alert>,
}

/// One alert.
#[derive(Debug, Deserialize)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    /// What tells it from others.
    pub labels: BTreeMap<String, String>,
    /// What it says.
    pub annotations: BTreeMap<String, String>,
}

impl Notification {
    /// Reads a webhook's body (version 4 of Alertmanager's format).
    pub fn parse(path: &str, body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Body {
            alerts: Vec<Alert>,
        }
        let Body { alerts } = serde_json::from_slice(body).context("no notification")?;
        Ok(Self {
            receiver: path.trim_start_matches('/').to_owned(),
            alerts,
        })
    }
}

impl Alert {
    /// Its name.
    pub fn name(&self) -> &str {
        self.label("alertname")
    }

    /// A label, or nothing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// An annotation, or nothing.
    pub fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }
}

/// Labels that say whom an alert is about.
pub fn subject(labels: &BTreeMap<String, String>) -> String {
    let labels = labels
        .iter()
        .filter(|(name, _)| !["alertname", "severity", "job"].contains(&name.as_str()));
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    labels.join(" ")
}

impl Display for Alert {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = self.status.to_uppercase();
        let (name, severity) = (self.name(), self.label("severity"));
        write!(f, "{status} {name} ({severity}) {}", subject(&self.labels))?;
        for name in ["summary", "description", "runbook_url", "dashboard_url"] {
            write!(f, "\n    {name}: {}", self.annotation(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Alertmanager 0.25 sends it, with a group of its own.
    const BODY: &str = r#"{"receiver":"page","status":"firing","alerts":[{"status":"firing",
        "labels":{"alertname":"SplitLockGuestOffends","id":"u-1","job":"splitlock",
        "severity":"critical","vm":"web1"},
        "annotations":{"description":"long","summary":"short","runbook_url":"r","dashboard_url":"d"},
        "startsAt":"2026-01-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z",
        "generatorURL":"http://127.0.0.1:9090/graph","fingerprint":"0"}],
        "groupLabels":{"job":"splitlock"},"commonLabels":{},"commonAnnotations":{},
        "externalURL":"http://127.0.0.1:9093","version":"4","groupKey":"{}","truncatedAlerts":0}"#;

    #[test]
    fn a_notification_is_read_and_told() {
        let notification = Notification::parse("/page", BODY.as_bytes()).unwrap();
        assert_eq!(notification.receiver, "page");
        assert_eq!(
            notification.alerts[0].to_string(),
            "FIRING SplitLockGuestOffends (critical) id=\"u-1\" vm=\"web1\"\n    summary: short\n    \
             description: long\n    runbook_url: r\n    dashboard_url: d"
        );
    }

    #[test]
    fn other_json_is_none() {
        assert!(Notification::parse("/page", b"{}").is_err());
        assert!(Notification::parse("/page", b"[]").is_err());
    }
}
