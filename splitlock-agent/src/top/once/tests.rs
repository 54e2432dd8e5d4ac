use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::top::answer::{self, Answer, Detail};
use crate::top::fixture::{answer, pictures, process, vm};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: TopOptions,
}

fn options(flags: &[&str]) -> TopOptions {
    Command::parse_from(["top"].iter().chain(flags)).options
}

fn picture() -> Picture {
    let look = |second: f64, locks: u64| {
        let vms = [vm(10, "web1", locks, 4000), vm(11, "db1", 3, 900)];
        answer(second, &vms, &[process(20, "batch", 5)])
    };
    pictures([look(0.0, 10), look(2.0, 30)]).remove(1)
}

#[test]
fn a_pipe_gets_all_columns_in_full() {
    let text = table(&picture(), &options(&["--once"]), "here", None);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("here, Linux 6.18.0"));
    let head = lines.find(|line| line.starts_with("VM ")).unwrap();
    for column in [
        "PID", "SPLIT/S", "BUS/S", "TOP EXIT", "#AC", "UNIT", "STATE",
    ] {
        assert!(head.contains(column), "{column} in {head}");
    }
    assert!(lines.next().unwrap().starts_with("web1 "));
    assert!(!text.contains('…'));
}

#[test]
fn a_terminal_gets_what_fits() {
    for width in [40, 80, 132] {
        let text = table(&picture(), &options(&["--once"]), "here", Some(width));
        for line in text.lines() {
            assert!(crate::top::figures::width(line) <= width, "{width}: {line}");
        }
    }
}

#[test]
fn rows_are_chosen_sorted_and_counted() {
    let flags = ["--once", "--sort", "name", "--limit", "1"];
    let text = table(&picture(), &options(&flags), "here", None);
    assert!(
        text.contains("\ndb1 ") && text.contains("1 of 2 are shown."),
        "{text}"
    );
    assert!(!text.contains("web1"));
    let flags = ["--once", "--filter", "web1"];
    let text = table(&picture(), &options(&flags), "here", None);
    assert!(text.contains("None of 1 processes is shown."), "{text}");
}

#[test]
fn scripts_get_numbers_and_nulls() {
    let text = json(&picture(), &options(&["--json"]), "here").unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], SCHEMA);
    assert_eq!(value["seconds"], 2.0);
    assert_eq!(value["hooks_not_attached"], json!(["handle_bus_lock"]));
    let vm = &value["vms"][0];
    assert_eq!(vm["name"], "web1");
    assert_eq!((&vm["pid"], &vm["start_ticks"]), (&json!(10), &json!(100)));
    assert_eq!(vm["split_locks_per_second"], 10.0);
    assert_eq!(
        vm["exits"]["msr_write"],
        json!({"count": 3000, "per_second": 0.0})
    );
    assert_eq!(value["processes"][0]["alignment_checks"], 5);

    let first = pictures([answer(0.0, &[vm_of_one()], &[])]).remove(0);
    let text = json(&first, &options(&["--json"]), "here").unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["seconds"], Value::Null);
    assert_eq!(value["vms"][0]["split_locks_per_second"], Value::Null);
}

fn vm_of_one() -> Value {
    vm(1, "one", 1, 1)
}

/// Whatever answers, no text of its reaches the terminal as it came: in a table, as JSON, or as an error.
#[test]
fn fuzz_answer() {
    let options = options(&["--once"]);
    bolero::check!(name = "answer").for_each(|body: &[u8]| {
        let is_harmless = |text: &str| {
            text.lines()
                .all(|line| line == crate::subjects::names::printable(line.as_bytes()))
        };
        if let Err(error) = answer::read::<Detail>(body) {
            assert!(is_harmless(&error), "{error:?}");
        }
        let look = || match answer::read::<Answer>(body) {
            Ok(answer) => Some(answer),
            Err(error) => {
                assert!(is_harmless(&error), "{error:?}");
                None
            }
        };
        let (Some(first), Some(second)) = (look(), look()) else {
            return;
        };
        let now = Instant::now();
        let before = Picture::new(first, now, None);
        let picture = Picture::new(
            second,
            now + std::time::Duration::from_secs(1),
            Some(&before),
        );
        for width in [None, Some(40), Some(200)] {
            let text = table(&picture, &options, "here", width);
            assert!(is_harmless(&text), "{text:?}");
        }
        let text = json(&picture, &options, "here").unwrap();
        serde_json::from_str::<Value>(&text).unwrap();
    });
}
