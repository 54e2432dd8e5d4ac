//! Each metric, label and value in a query of the rules, of an annotation or of promtool's tests is in
//! the contract.

use super::{
    Test,
    contract::Contract,
    files::{Rule, cases, rules},
    labels::Known,
};

pub const TESTS: &[Test] = &[
    Test {
        name: "queries::all_that_a_query_names_is_there",
        needs: &[],
        run: all_that_a_query_names_is_there,
    },
    Test {
        name: "queries::what_is_not_there_is_found",
        needs: &[],
        run: what_is_not_there_is_found,
    },
    Test {
        name: "queries::what_promtools_tests_make_exists",
        needs: &[],
        run: what_promtools_tests_make_exists,
    },
    Test {
        name: "queries::recorded_names_have_three_parts",
        needs: &[],
        run: recorded_names_have_three_parts,
    },
];

fn known() -> Known {
    Known::new(Contract::read(), rules())
}

fn all_that_a_query_names_is_there() {
    let known = known();
    for rule in rules() {
        let labels = known.labels_of(&rule.expr).unwrap_or_else(|error| {
            panic!("{:?}{:?}: {error}", rule.record, rule.alert);
        });
        let Some(alert) = &rule.alert else { continue };
        for text in rule.annotations.values().chain(rule.labels.values()) {
            for label in words_after(text, "$labels.") {
                let is_there = labels.contains(&label) || rule.labels.contains_key(&label);
                assert!(is_there, "{alert}: no label {label} for {text}");
            }
            for query in queries_in(text) {
                known
                    .labels_of(&query)
                    .unwrap_or_else(|error| panic!("{alert}: {error}"));
            }
        }
    }
}

/// The other way round: the check sees a mistake of each kind.
fn what_is_not_there_is_found() {
    let known = known();
    for (query, mistake) in [
        ("splitlock_traps_total", "no metric splitlock_traps_total"),
        (
            "rate(splitlock_vm_traps_total{pid=\"1\"}[5m])",
            "no label pid",
        ),
        ("splitlock_host_sees{origin=\"vm\"}", "origin is never vm"),
        (
            "splitlock_lost_total{cause=~\"record_ring_full|ring\"}",
            "cause is never ring",
        ),
        ("sum by (vm) (splitlock_host_traps_total)", "no label vm"),
        ("up and on (vm) splitlock_vm_info", "no label vm"),
        (
            "label_replace(up, \"a\", \"$1\", \"host\", \"(.+)\")",
            "no label host",
        ),
        ("splitlock:agent:up{port=\"1\"}", "no label port"),
    ] {
        let error = known.labels_of(query).expect_err(query);
        assert!(error.contains(mistake), "{query}: {error}");
    }
    let nested = queries_in(r#"{{ with query "up" }}{{ end }}{{ query (printf "x{a=%q}" .B) }}"#);
    assert_eq!(nested, ["up", r#"x{a="x"}"#]);
}

/// A label that an operator's configuration, or federation, may put on any series.
const FROM_OUTSIDE: &str = r#"cluster="c1""#;

fn what_promtools_tests_make_exists() {
    let known = known();
    for case in cases() {
        for input in &case.input_series {
            let series = input.series.replace(&format!(",{FROM_OUTSIDE}"), "");
            known
                .labels_of(&series.replace(FROM_OUTSIDE, ""))
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
    }
}

fn recorded_names_have_three_parts() {
    for Rule { record, .. } in rules() {
        let Some(name) = record else { continue };
        assert_eq!(
            name.split(':').count(),
            3,
            "{name}: level:metric:operations"
        );
    }
}

/// The queries of a template, with any value for what it puts in.
fn queries_in(template: &str) -> Vec<String> {
    ["query \"", "query (printf \""]
        .into_iter()
        .flat_map(|begin| template.split(begin).skip(1))
        .map(|rest| {
            let (query, _) = rest.split_once('"').expect("the query has an end");
            query.replace("%q", "\"x\"")
        })
        .collect()
}

/// The words that follow something.
pub fn words_after(text: &str, begin: &str) -> Vec<String> {
    text.split(begin)
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}
