//! What Prometheus and Alertmanager are told: the files of `dashboards/`, and where the hosts are.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::{folder::Folder, quick};

/// The rules, below the workspace's root.
pub const RULES: [&str; 3] = [
    "dashboards/rules/alerts.yaml",
    "dashboards/rules/recording.yaml",
    "dashboards/rules/settings.yaml",
];
/// Alertmanager's routing, below the workspace's root.
pub const ROUTING: &str = "dashboards/alertmanager/alertmanager.yaml";
/// The job that the rules' settings name.
pub const JOB: &str = "splitlock";

/// Seconds between two scrapes, and between two evaluations of rules without a time of their own.
pub const INTERVAL: u64 = 5;

/// A host whose agent is scraped.
pub struct Target {
    /// The host's name.
    pub instance: String,
    /// The agent's port on the loopback.
    pub port: u16,
}

/// Writes the rules and Prometheus's configuration, and names the latter.
pub fn prometheus(
    root: &Path,
    folder: &Folder,
    targets: &[Target],
    alertmanager: u16,
) -> Result<std::path::PathBuf> {
    for file in RULES {
        let rules = quick::rules(&read(root, file)?).with_context(|| file.to_owned())?;
        let (_, name) = file.rsplit_once('/').context("a file is in a folder")?;
        folder.write(&format!("rules/{name}"), &rules)?;
    }
    folder.write("prometheus.yaml", &configuration(targets, alertmanager))
}

/// Writes Alertmanager's configuration, and names it.
pub fn alertmanager(root: &Path, folder: &Folder, receiver: u16) -> Result<std::path::PathBuf> {
    let routing = quick::routing(&read(root, ROUTING)?, &format!("127.0.0.1:{receiver}"))
        .with_context(|| ROUTING.to_owned())?;
    folder.write("alertmanager.yaml", &routing)
}

/// A file of the workspace.
pub fn read(root: &Path, file: &str) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
}

fn configuration(targets: &[Target], alertmanager: u16) -> String {
    let mut text = format!(
        "global: {{scrape_interval: {INTERVAL}s, evaluation_interval: {INTERVAL}s}}\n\
         rule_files: ['rules/*.yaml']\n\
         alerting:\n  alertmanagers:\n  - static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]\n\
         scrape_configs:\n- job_name: {JOB}\n  static_configs:\n"
    );
    for Target { instance, port } in targets {
        // All are on the loopback: their names are not in their addresses.
        writeln!(
            text,
            "  - {{targets: ['127.0.0.1:{port}'], labels: {{instance: '{instance}'}}}}"
        )
        .expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_its_name() {
        let target = |instance: &str, port| Target {
            instance: instance.to_owned(),
            port,
        };
        let text = configuration(&[target("hv1", 1001), target("here", 1002)], 1003);
        assert!(text.contains("['127.0.0.1:1001'], labels: {instance: 'hv1'}"));
        assert!(text.contains("['127.0.0.1:1002'], labels: {instance: 'here'}"));
        assert!(
            text.contains("alertmanagers:\n  - static_configs: [{targets: ['127.0.0.1:1003']}]")
        );
    }
}
