//! Kubernetes manifests: those of `packaging/kubernetes`, and the rules as the Prometheus operator takes
//! them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    Site,
    release::Release,
    tree::{Tree, read},
};

/// Files of `dashboards/rules`, all of which the alerts need.
const RULES: [&str; 3] = ["settings.yaml", "recording.yaml", "alerts.yaml"];

const HEAD: &str = "\
# The rules and alerts of dashboards/rules: change thresholds, targets and links in its first group.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: splitlock-agent
  labels:
    app.kubernetes.io/name: splitlock-agent
spec:
  groups:
";

/// Writes them into `kubernetes` in a folder, and all of that as
/// `splitlock-agent-VERSION-kubernetes.tar.gz`.
pub fn build(site: &Site, release: &Release, out: &Path) -> Result<()> {
    let tree = Tree::new(out.join("kubernetes"))?;
    let from = site.root.join("packaging/kubernetes");
    for entry in fs::read_dir(&from).with_context(|| format!("cannot list {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        let text = String::from_utf8(read(&path)?)?;
        tree.text(
            &name.to_string_lossy(),
            text.replace("@VERSION@", &release.version),
        )?;
    }
    let mut rules = HEAD.to_owned();
    for name in RULES {
        let text = String::from_utf8(read(&site.root.join("dashboards/rules").join(name))?)?;
        rules += &groups(&text).with_context(|| format!("{name} has no groups"))?;
    }
    tree.text("prometheusrule.yaml", rules)?;
    let name = format!("splitlock-agent-{}-kubernetes.tar", release.version);
    tree.tar(release, &out.join(&name))?;
    super::tree::gzip(&out.join(name))
}

/// The groups of a file of rules, two columns further to the right. Prometheus's templates and texts over
/// several lines come through as they are.
fn groups(text: &str) -> Option<String> {
    let (_, groups) = text.split_once("\ngroups:\n")?;
    let mut moved = String::new();
    for line in groups.lines() {
        if !line.is_empty() {
            moved += "  ";
        }
        moved += line;
        moved.push('\n');
    }
    Some(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_moved_as_they_are() {
        let text = "# about\ngroups:\n  - name: a\n    rules:\n\n      # {{ $x }}\n";
        assert_eq!(
            groups(text).unwrap(),
            "    - name: a\n      rules:\n\n        # {{ $x }}\n"
        );
        assert_eq!(groups("rules: []\n"), None);
    }
}
