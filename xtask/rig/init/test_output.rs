//! What the test program prints, as reports.

use crate::protocol::Report;

/// The beginning of a failure's message that is reported; all of it is on the console.
const MESSAGE_BYTES: usize = 2000;

/// Reads its standard output line by line.
#[derive(Debug, Default)]
pub struct TestOutput {
    /// The failure whose message comes, and the message so far.
    failure: Option<(String, String)>,
    /// The last line, with the numbers.
    pub summary: Option<String>,
}

impl TestOutput {
    /// The reports that a line completes.
    pub fn line(&mut self, line: &str) -> Vec<Report> {
        if let Some(test) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" ----"))
        {
            let before = self.failure.replace((test.to_owned(), String::new()));
            return before.map(report).into_iter().collect();
        }
        if line == "failures:" {
            // The messages come after the first of these lines, the names after the second.
            return self.failure.take().map(report).into_iter().collect();
        }
        if let Some((_, message)) = &mut self.failure {
            if message.len() < MESSAGE_BYTES {
                message.push_str(line);
                message.push('\n');
            }
            return Vec::new();
        }
        if line.starts_with("test result: ") {
            self.summary = Some(line.to_owned());
            return Vec::new();
        }
        result(line).into_iter().collect()
    }
}

fn report((test, message): (String, String)) -> Report {
    Report::Failure {
        test,
        message: message.trim_end().to_owned(),
    }
}

/// `test NAME   ... ok`.
fn result(line: &str) -> Option<Report> {
    let (test, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    Some(Report::Test {
        test: test.trim().to_owned(),
        result: result.split([',', ' ']).next()?.to_owned(),
    })
}

/// A line of its standard error that tells why a test skips.
pub fn skipped(line: &str) -> Option<Report> {
    let (test, reason) = line.split_once(" skips: ")?;
    (!test.contains(' ')).then(|| Report::Skipped {
        test: test.to_owned(),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(test: &str, result: &str) -> Report {
        Report::Test {
            test: test.to_owned(),
            result: result.to_owned(),
        }
    }

    #[test]
    fn results_failures_and_summary_are_told_apart() {
        let printed = "\nrunning 3 tests\n\
            test processes::one                 ... ok\n\
            test processes::two                 ... FAILED\n\
            test prometheus::three              ... ignored\n\
            \nfailures:\n\n\
            ---- processes::two ----\n\
            test panicked: left != right\n  test what ... ok\n\n\n\
            failures:\n    processes::two\n\n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured\n\n";
        let mut output = TestOutput::default();
        let reports: Vec<Report> = printed.lines().flat_map(|line| output.line(line)).collect();
        assert_eq!(
            reports,
            [
                test("processes::one", "ok"),
                test("processes::two", "FAILED"),
                test("prometheus::three", "ignored"),
                Report::Failure {
                    test: "processes::two".to_owned(),
                    message: "test panicked: left != right\n  test what ... ok".to_owned(),
                },
            ]
        );
        assert!(output.summary.unwrap().contains("1 failed"));
    }

    #[test]
    fn long_messages_are_cut() {
        let mut output = TestOutput::default();
        output.line("---- a ----");
        for _ in 0..10_000 {
            output.line("a line of a large dump");
        }
        let [Report::Failure { message, .. }] = &output.line("failures:")[..] else {
            panic!("one failure")
        };
        assert!(message.len() < MESSAGE_BYTES + 100);
    }

    #[test]
    fn reasons_of_skipping_are_read() {
        assert_eq!(
            skipped("guests::a skips: needs /dev/kvm; needs root"),
            Some(Report::Skipped {
                test: "guests::a".to_owned(),
                reason: "needs /dev/kvm; needs root".to_owned(),
            })
        );
        assert_eq!(skipped("something else skips: a line"), None);
    }
}
