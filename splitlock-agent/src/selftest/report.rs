//! What the test found, for a person and for a program.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    counter::Counter,
    plan::Step,
    reading::Host,
    verdict::{Line, Verdict},
};

/// Version of the report's serialised form.
const SCHEMA: u32 = 1;

/// Width of a terminal that everything fits on.
const WIDTH: usize = 80;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    schema: u32,
    /// Whether something that should have been counted was not.
    failed: bool,
    /// Whether anything was trapped and counted at all.
    proved: bool,
    agent: &'a str,
    kernel: &'a str,
    detection_mode: &'a str,
    detection_source: &'a str,
    steps: &'a [Line],
}

impl<'a> Report<'a> {
    /// Of these comparisons.
    pub fn new(agent: &'a str, host: &'a Host, steps: &'a [Line]) -> Self {
        Self {
            schema: SCHEMA,
            failed: steps.iter().any(|line| line.verdict == Verdict::Failed),
            proved: steps
                .iter()
                .any(|line| line.verdict == Verdict::Ok && line.counted.is_some_and(|n| n > 0)),
            agent,
            kernel: &host.kernel,
            detection_mode: &host.detection_mode,
            detection_source: &host.detection_source,
            steps,
        }
    }

    /// Whether something that should have been counted was not.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// For a person.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<17} {:>7} {:>8} {:>8}  {:<23}  verdict\n",
            "step", "made", "trapped", "counted", "by"
        );
        for line in self.steps {
            let number = |value: Option<u64>| value.map_or("-".to_owned(), |n| n.to_string());
            let _ = writeln!(
                text,
                "{:<17} {:>7} {:>8} {:>8}  {:<23}  {}",
                line.step,
                number(line.made),
                number(line.trapped),
                number(line.counted),
                line.hook.unwrap_or("-"),
                verdict_word(line.verdict),
            );
        }
        text.push('\n');
        for line in self.steps.iter().filter(|line| !line.reason.is_empty()) {
            let what = match line.verdict {
                Verdict::Failed => "FAILED: ",
                Verdict::NotTrapped => "not trapped here: ",
                Verdict::LeftOut => "left out: ",
                Verdict::Ok | Verdict::Planned => "",
            };
            paragraph(&mut text, &format!("{}: {what}{}", line.step, line.reason));
        }
        let left_out: Vec<&str> = self
            .steps
            .iter()
            .filter(|line| line.verdict == Verdict::LeftOut)
            .map(|line| line.step)
            .collect();
        if !left_out.is_empty() {
            let names = left_out.join(", ");
            paragraph(&mut text, &format!("Not tested: {names}."));
        }
        let end = if self.failed {
            "FAILED: something that should have been counted was not."
        } else if self.proved {
            "All that was trapped was counted."
        } else {
            "Nothing that was made is trapped here, so nothing is proved."
        };
        paragraph(&mut text, end);
        text
    }
}

/// What will be done.
pub fn announcement(counter: &Counter, host: &Host, steps: &[Step]) -> String {
    let mut text = String::new();
    let agent = counter.name();
    paragraph(
        &mut text,
        &format!(
            "On Linux {}, split-lock detection {} ({}), {agent} is to count what a child process makes:",
            host.kernel, host.detection_mode, host.detection_source
        ),
    );
    for step in steps {
        let what = match &step.left_out {
            None => step.describe(),
            Some(why) => format!("left out: {why}."),
        };
        paragraph(&mut text, &format!("  {}: {what}", step.title()));
    }
    if counter.is_running() {
        let words = "What it counts stays in its totals, and alerts may tell of it.";
        paragraph(&mut text, words);
    }
    text.push('\n');
    text
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::NotTrapped => "none",
        Verdict::Planned => "planned",
        Verdict::LeftOut => "left out",
        Verdict::Failed => "FAILED",
    }
}

/// Adds words in lines that fit, the later ones indented.
fn paragraph(text: &mut String, words: &str) {
    let indent = words.len() - words.trim_start().len();
    let mut column = indent;
    text.push_str(&" ".repeat(indent));
    for (index, word) in words.split_whitespace().enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > WIDTH {
            text.push('\n');
            column = indent + 4;
            text.push_str(&" ".repeat(column));
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit() {
        let mut text = String::new();
        paragraph(&mut text, &format!("  begin: {}", "word ".repeat(50)));
        assert!(text.lines().count() > 2);
        for (number, line) in text.lines().enumerate() {
            assert!(line.len() <= WIDTH, "{line}");
            assert_eq!(line.starts_with("      "), number > 0, "{line}");
        }
    }
}
