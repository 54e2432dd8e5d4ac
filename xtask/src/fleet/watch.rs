//! What happens, as it happens.

use std::{
    collections::BTreeMap,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    Fleet, hypervisor,
    interrupt::Interrupt,
    notification::{self, Notification},
    prometheus::{Prometheus, Waiting},
    receiver::Receiver,
};

/// Between two looks at whether all is well.
const LOOK: Duration = Duration::from_secs(1);

/// Until when it goes on.
#[derive(Clone, Copy)]
pub enum Until {
    /// Somebody ends it.
    Interrupted,
    /// The notification that names the offender, or this time is over.
    Proof(Duration),
}

/// Tells what happens.
///
/// # Errors
/// Something ended that should not have, there was no proof in time, or somebody ended it.
pub fn watch(
    fleet: &mut Fleet,
    receiver: &Receiver,
    until: Until,
    interrupt: &Interrupt,
) -> Result<()> {
    let start = Instant::now();
    let say = |text: &str| eprintln!("[{:4} s] {text}", start.elapsed().as_secs());
    let mut alerts = BTreeMap::new();
    let mut looked = start;
    loop {
        interrupt.check()?;
        match receiver.notifications.recv_timeout(LOOK / 4) {
            Ok(Ok(notification)) => {
                tell(&notification, &say);
                if matches!(until, Until::Proof(_)) && hypervisor::is_proof(&notification)? {
                    return Ok(());
                }
            }
            // Others may look at an open port.
            Ok(Err(error)) => say(&format!("at the webhook: {error:#}")),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the receiver of notifications ended"),
        }
        if looked.elapsed() > LOOK {
            looked = Instant::now();
            fleet.check(&say)?;
            tell_changes(&mut alerts, &fleet.monitoring.prometheus, &say)?;
        }
        match until {
            Until::Proof(limit) if start.elapsed() > limit => {
                bail!(
                    "no notification named the guest within {} s",
                    limit.as_secs()
                )
            }
            Until::Proof(_) | Until::Interrupted => {}
        }
    }
}

fn tell(notification: &Notification, say: &dyn Fn(&str)) {
    let Notification { receiver, alerts } = notification;
    for alert in alerts {
        say(&format!("notification to {receiver}: {alert}"));
    }
}

/// Whom it is about, and its state.
type Alerts = BTreeMap<BTreeMap<String, String>, String>;

fn tell_changes(known: &mut Alerts, prometheus: &Prometheus, say: &dyn Fn(&str)) -> Result<()> {
    let now: Alerts = prometheus
        .alerts()?
        .into_iter()
        // Before the first scrape and the first evaluation all agents and thresholds are missing.
        .filter(|alert| alert.state == "firing" || names_somebody(&alert.labels))
        .map(|Waiting { state, labels }| (labels, state))
        .collect();
    for line in changes(known, &now) {
        say(&line);
    }
    *known = now;
    Ok(())
}

fn names_somebody(labels: &BTreeMap<String, String>) -> bool {
    ["instance", "vm", "comm"]
        .iter()
        .any(|name| labels.contains_key(*name))
}

fn changes(before: &Alerts, now: &Alerts) -> Vec<String> {
    let line = |labels: &BTreeMap<String, String>, state: &str| {
        let label = |name| labels.get(name).map_or("", String::as_str);
        let (name, severity) = (label("alertname"), label("severity"));
        let subject = notification::subject(labels);
        format!("Prometheus: {name} ({severity}) {subject} is {state}")
    };
    let new = now
        .iter()
        .filter(|(labels, state)| before.get(*labels) != Some(state))
        .map(|(labels, state)| line(labels, state));
    let gone = before
        .keys()
        .filter(|labels| !now.contains_key(*labels))
        .map(|labels| line(labels, "over"));
    new.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_about_nobody_is_not_told_before_it_fires() {
        let labels = |name: &str| BTreeMap::from([(name.to_owned(), "a".to_owned())]);
        assert!(names_somebody(&labels("vm")));
        assert!(!names_somebody(&labels("missing")));
    }

    #[test]
    fn only_changes_are_told() {
        let labels = |vm: &str| {
            let labels = [("alertname", "A"), ("severity", "warning"), ("vm", vm)];
            BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        let alerts = |list: &[(&str, &str)]| -> Alerts {
            let list = list.iter();
            list.map(|(vm, state)| (labels(vm), (*state).to_owned()))
                .collect()
        };
        let before = alerts(&[("a", "pending"), ("b", "firing"), ("c", "firing")]);
        let now = alerts(&[("a", "firing"), ("b", "firing"), ("d", "pending")]);
        assert_eq!(
            changes(&before, &now),
            [
                "Prometheus: A (warning) vm=\"a\" is firing",
                "Prometheus: A (warning) vm=\"d\" is pending",
                "Prometheus: A (warning) vm=\"c\" is over",
            ]
        );
        assert!(changes(&now, &now).is_empty());
    }
}
