//! What docs/openapi.yaml says of the agent's answers, held against the answers to real events.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::{
    Test,
    agent::Agent,
    events::{Child, Event, kvm_guest::Guest},
    requirements::Requirement::{AlignmentChecks, Kvm, Root},
};

pub const TESTS: &[Test] = &[
    Test {
        name: "openapi::answers_are_as_described",
        needs: &[Root, AlignmentChecks, Kvm],
        run: answers_are_as_described,
    },
    Test {
        name: "openapi::paths_are_those_of_the_server",
        needs: &[],
        run: paths_are_those_of_the_server,
    },
    Test {
        name: "openapi::what_is_not_described_is_found",
        needs: &[],
        run: what_is_not_described_is_found,
    },
];

/// The description; in a rig it is not there, and nothing of this runs there.
fn description() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn answers_are_as_described() {
    let api = description();
    let agent = Agent::start(&["--probe-statistics"]);
    let mut process = Child::spawn(
        &Event::AlignmentCheck {
            count: 50,
            threads: 1,
        },
        "openapi-ac",
    );
    process.run();
    let mut guest = Child::spawn(
        &Event::KvmGuest {
            guest: Guest::AlignmentCheck,
            count: 50,
            vcpus: 1,
        },
        "openapi-vm",
    );
    guest.run();
    let id = |pid: u32| {
        agent.wait_for("its series", |metrics| {
            !metrics.with_label("pid", &pid.to_string()).is_empty()
        });
        let snapshot = agent.snapshot();
        let rows =
            ["processes", "vms"].map(|kind| snapshot[kind].as_array().cloned().unwrap_or_default());
        let row = rows
            .into_iter()
            .flatten()
            .find(|row| row["pid"] == pid)
            .expect("a row");
        format!("{pid}-{}", row["start_ticks"])
    };
    let subjects = [id(process.pid()), id(guest.pid())];
    // What is at the addresses is told a moment later.
    let start = std::time::Instant::now();
    while start.elapsed().as_secs() < 10 && !agent.get("/api/v1/snapshot").contains("\"operand\"") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut asked = BTreeSet::new();
    let mut paths: Vec<(String, &str)> = api["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .filter(|path| !path.contains('{'))
        .map(|path| (path.clone(), path.as_str()))
        .collect();
    for subject in &subjects {
        paths.push((
            format!("/api/v1/subjects/{subject}"),
            "/api/v1/subjects/{subject}",
        ));
    }
    for (path, described) in paths {
        let url = format!("http://{}{path}", agent.address());
        let mut answer = ureq::get(&url)
            .call()
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        let content = &api["paths"][described]["get"]["responses"]["200"];
        let content = resolve(&api, content)["content"]
            .as_object()
            .expect("content");
        let (kind, content) = content.iter().next().expect("one type");
        let told = answer.headers()["content-type"]
            .to_str()
            .expect("text")
            .to_owned();
        assert_eq!(told, *kind, "{path}");
        let body = answer.body_mut().read_to_string().expect("text");
        if kind == "application/json" {
            let body: Value = serde_json::from_str(&body).expect("JSON");
            hold(&api, &content["schema"], &body, described, &mut asked);
        }
    }
    // Nothing that is described is made up: each field was seen, but for what this host has not.
    let rare = [
        "Process.missing",
        // No hook of this kernel tells a guest's address.
        "Vm.sites",
        "Vm.missing",
        "Story.function",
        "Code.missing",
        "Workload",
        "Missing",
        "Code.source",
        "Code.function_offset",
    ];
    for (name, schema) in api["components"]["schemas"].as_object().expect("schemas") {
        for field in schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys())
        {
            let place = format!("{name}.{field}");
            let is_rare = rare.iter().any(|rare| place == *rare || *rare == name);
            assert!(
                is_rare || asked.contains(&place),
                "{place} was in no answer"
            );
        }
    }
    assert!(api["components"]["schemas"]["Snapshot"]["properties"]["schema"]["const"] == 1);
    drop((process, guest));
    let status = ureq::get(format!("http://{}/api/v1/subjects/1-x", agent.address())).call();
    assert!(matches!(status, Err(ureq::Error::StatusCode(404))));
}

fn paths_are_those_of_the_server() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/server");
    let mut routes = BTreeSet::new();
    for entry in fs::read_dir(&folder).expect("the server's sources") {
        let path = entry.expect("an entry").path();
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (at, _) in code.match_indices(".route(") {
            let rest = code[at + ".route(".len()..].trim_start();
            routes.insert(match rest.strip_prefix('"') {
                Some(literal) => literal
                    .split('"')
                    .next()
                    .expect("a literal ends")
                    .to_owned(),
                // The only one that a flag names.
                None => "/metrics".to_owned(),
            });
        }
    }
    let api = description();
    let described: BTreeSet<String> = api["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .cloned()
        .collect();
    assert_eq!(described, routes);
}

/// The test of the test: a field too many, one too few, and one of another kind are found.
fn what_is_not_described_is_found() {
    let api = description();
    let schema = &api["components"]["schemas"]["Fullness"];
    let holds = |body: Value| {
        std::panic::catch_unwind(|| hold(&api, schema, &body, "Fullness", &mut BTreeSet::new()))
            .is_ok()
    };
    assert!(holds(serde_json::json!({"used": 1, "limit": 2})));
    for wrong in [
        serde_json::json!({"used": 1}),
        serde_json::json!({"used": 1, "limit": 2, "more": 3}),
        serde_json::json!({"used": "1", "limit": 2}),
        serde_json::json!({"used": -1, "limit": 2}),
        serde_json::json!([]),
    ] {
        assert!(!holds(wrong.clone()), "{wrong}");
    }
}

fn resolve<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(to) => {
            let found = api.pointer(to.trim_start_matches('#'));
            found.unwrap_or_else(|| panic!("{to} is not there"))
        }
        None => schema,
    }
}

/// Holds a value against its schema, as far as the description uses the language of schemas.
fn hold(api: &Value, schema: &Value, value: &Value, place: &str, seen: &mut BTreeSet<String>) {
    if let Some(to) = schema["$ref"].as_str() {
        let name = to.rsplit('/').next().expect("a name");
        return hold(api, resolve(api, schema), value, name, seen);
    }
    for keyword in schema.as_object().expect("a schema").keys() {
        let known = [
            "type",
            "properties",
            "required",
            "additionalProperties",
            "items",
            "enum",
            "const",
            "pattern",
            "minimum",
            "maximum",
            "maxLength",
            "maxItems",
            "description",
            "anyOf",
        ];
        assert!(
            known.contains(&keyword.as_str()),
            "{place}: {keyword} is not understood here"
        );
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let kind = if value.is_null() {
            any.first()
        } else {
            any.last()
        };
        return hold(api, kind.expect("two"), value, place, seen);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
    };
    let fits = types.contains(&kind) || (kind == "integer" && types.contains(&"number"));
    assert!(fits, "{place}: {value} is none of {types:?}");
    if let Some(values) = schema["enum"].as_array() {
        assert!(
            values.contains(value),
            "{place}: {value} is none of {values:?}"
        );
    }
    assert!(
        schema.get("const").is_none_or(|only| only == value),
        "{place}: {value}"
    );
    match value {
        Value::Number(number) => {
            let number = number.as_f64().expect("a number");
            assert!(
                schema["minimum"]
                    .as_f64()
                    .is_none_or(|least| number >= least),
                "{place}: {value}"
            );
            assert!(
                schema["maximum"].as_f64().is_none_or(|most| number <= most),
                "{place}: {value}"
            );
        }
        Value::String(text) => {
            let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
            assert!(text.chars().count() as u64 <= most, "{place}: {value}");
            if let Some(pattern) = schema["pattern"].as_str() {
                assert!(
                    fits_pattern(pattern, text),
                    "{place}: {value} is not {pattern}"
                );
            }
        }
        Value::Array(values) => {
            let most = schema["maxItems"].as_u64().unwrap_or(u64::MAX);
            assert!(values.len() as u64 <= most, "{place}: {}", values.len());
            for value in values {
                hold(api, &schema["items"], value, place, seen);
            }
        }
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().expect("a name");
                assert!(fields.contains_key(name), "{place}: no {name}");
            }
            for (name, value) in fields {
                let inner = format!("{place}.{name}");
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Object(_)) => {
                        hold(api, &schema["additionalProperties"], value, &inner, seen);
                    }
                    (Value::Null, _) => panic!("{inner} is not described"),
                    (described, _) => {
                        seen.insert(inner.clone());
                        hold(api, described, value, &inner, seen);
                    }
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// The few patterns of the description: a beginning, then characters of one class.
fn fits_pattern(pattern: &str, text: &str) -> bool {
    let all = |text: &str, extra: &str| {
        text.chars()
            .all(|c| matches!(c, '0'..='9' | 'a'..='f') || extra.contains(c))
    };
    match pattern {
        "^0x[0-9a-f]+$" => text
            .strip_prefix("0x")
            .is_some_and(|rest| !rest.is_empty() && all(rest, "")),
        "^[0-9a-f]*$" => all(text, ""),
        "^[0-9a-f ]*$" => all(text, " "),
        other => panic!("the pattern {other} is not understood here"),
    }
}
