//! What promtool says of the rules, their tests and the configurations.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use serde_json::Value;

use super::{
    Test,
    files::{dashboards, list, read},
    programs::Program::Promtool,
};

pub const TESTS: &[Test] = &[
    Test {
        name: "prometheus::promtool_accepts_the_rules",
        needs: &[Promtool],
        run: promtool_accepts_the_rules,
    },
    Test {
        name: "prometheus::promtools_tests_pass",
        needs: &[Promtool],
        run: promtools_tests_pass,
    },
    Test {
        name: "prometheus::promtool_accepts_the_configurations",
        needs: &[Promtool],
        run: promtool_accepts_the_configurations,
    },
    Test {
        name: "prometheus::an_instance_is_a_host_without_a_port",
        needs: &[Promtool],
        run: an_instance_is_a_host_without_a_port,
    },
];

fn promtool_accepts_the_rules() {
    for file in list("rules", ".yaml") {
        Promtool.succeeds(&["check", "rules", "--lint-fatal"], &[&file]);
    }
}

fn promtools_tests_pass() {
    for file in list("rules/tests", ".yaml") {
        Promtool.succeeds(&["test", "rules"], &[&file]);
    }
}

fn promtool_accepts_the_configurations() {
    for file in list("prometheus", ".yaml") {
        if file.ends_with("kubernetes.yaml") {
            continue;
        }
        Promtool.succeeds(&["check", "config", "--lint-fatal"], &[&file]);
    }
    // Debian builds Prometheus without Kubernetes: the rest of that configuration is checked with
    // targets in the discovery's place.
    let text = read(&dashboards("prometheus/kubernetes.yaml"));
    let discovery = "    kubernetes_sd_configs:\n      - role: pod\n";
    assert_eq!(text.matches(discovery).count(), 2);
    let text = text.replace(
        discovery,
        "    static_configs: [{ targets: ['10.0.0.1:1'] }]\n",
    );
    check_copy("kubernetes", &text);
    // Paths there are those inside a container.
    check_copy("demo", &read(&dashboards("demo/prometheus.yaml")));
}

/// A configuration that is changed for the check, with the rules where it looks for them.
fn check_copy(name: &str, text: &str) {
    let rules = dashboards("rules");
    let rules = rules.to_str().expect("a path in UTF-8");
    let text = text
        .replace("- ../rules/", "- rules/")
        .replace("- rules/", &format!("- {rules}/"));
    let folder: PathBuf =
        env::temp_dir().join(format!("splitlock-config-{name}-{}", std::process::id()));
    fs::create_dir(&folder).expect("a new folder");
    let file = folder.join("prometheus.yaml");
    fs::write(&file, text).expect("it is written");
    Promtool.succeeds(&["check", "config", "--lint-fatal"], &[&file]);
    fs::remove_dir_all(&folder).expect("it goes");
}

/// What Prometheus would scrape after relabelling: the agent's and the node exporter's targets of one
/// host have the same instance, as the rules compare them by it.
fn an_instance_is_a_host_without_a_port() {
    for (file, hosts) in [("static.yaml", 2), ("file_sd.yaml", 3)] {
        let path = dashboards(&format!("prometheus/{file}"));
        for (job, port) in [("splitlock", 9839), ("node", 9100)] {
            let path = path.to_str().expect("a path in UTF-8");
            let arguments = ["check", "service-discovery", "--timeout=2s", path, job];
            let output = Promtool.succeeds(&arguments, &[]);
            let targets: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            // They come in no order.
            let found: BTreeSet<[String; 3]> = targets
                .as_array()
                .expect("a list")
                .iter()
                .map(|target| {
                    ["instance", "__address__", "job"].map(|label| {
                        let value = target["labels"][label].as_str();
                        value.unwrap_or_default().to_owned()
                    })
                })
                .collect();
            let expected: BTreeSet<[String; 3]> = (1..=hosts)
                .map(|number| {
                    let host = format!("kvm{number}.example");
                    [host.clone(), format!("{host}:{port}"), job.to_owned()]
                })
                .collect();
            assert_eq!(found, expected, "{file}");
        }
    }
}
