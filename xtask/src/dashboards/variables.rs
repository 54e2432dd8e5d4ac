//! The variables at the top of each dashboard.

use serde_json::{Value, json};

/// The data source that every query uses.
pub const DATASOURCE: &str = "${datasource}";

/// The choice of the Prometheus.
pub fn datasource() -> Value {
    json!({
        "current": {},
        "hide": 0,
        "includeAll": false,
        "label": "Data source",
        "multi": false,
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "skipUrlSync": false,
        "type": "datasource",
    })
}

/// The choice of the scrape job. It has no "All": `up` is there of other jobs too, and an agent that
/// is down has nothing else left to be told by.
pub fn job() -> Value {
    Labels {
        name: "job",
        label: "Job",
        query: "label_values(splitlock_build_info, job)",
        description: "The scrape job of the agents",
        all: false,
    }
    .json()
}

/// The choice of agents.
pub fn instance() -> Value {
    Labels {
        name: "instance",
        label: "Instance",
        query: r#"label_values(splitlock_build_info{job=~"$job"}, instance)"#,
        description: "The agents, one on each host",
        all: true,
    }
    .json()
}

/// The choice of VMs by name.
pub fn vm() -> Value {
    Labels {
        name: "vm",
        label: "VM",
        query: r#"label_values(splitlock_vm_info{job=~"$job", instance=~"$instance"}, vm)"#,
        description: "The VM by its operator's name, which may repeat",
        all: true,
    }
    .json()
}

/// The choice of one VM: its id stays the same through a live migration.
pub fn id() -> Value {
    Labels {
        name: "id",
        label: "Id",
        query: r#"label_values(splitlock_vm_info{job=~"$job", instance=~"$instance", vm=~"$vm"}, id)"#,
        description: "The VM by its UUID, which it keeps when it migrates; without one, pid and start time of its VMM",
        all: false,
    }
    .json()
}

struct Labels {
    name: &'static str,
    label: &'static str,
    query: &'static str,
    description: &'static str,
    all: bool,
}

impl Labels {
    fn json(&self) -> Value {
        let Self {
            name,
            label,
            query,
            description,
            all,
        } = self;
        let current = if *all {
            json!({"selected": true, "text": ["All"], "value": ["$__all"]})
        } else {
            json!({})
        };
        json!({
            "allValue": ".+",
            "current": current,
            "datasource": {"type": "prometheus", "uid": DATASOURCE},
            "definition": query,
            "description": description,
            "hide": 0,
            "includeAll": all,
            "label": label,
            "multi": true,
            "name": name,
            "options": [],
            "query": {"query": query, "refId": format!("variable-{name}")},
            // On each change of the time range: who was there then.
            "refresh": 2,
            "regex": "",
            "skipUrlSync": false,
            // By name, numbers as numbers.
            "sort": 3,
            "type": "query",
        })
    }
}
