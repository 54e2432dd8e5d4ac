//! The agent's side, with shells in the place of who looks at files.

use super::*;
use crate::subjects::SubjectId;

/// Nothing is overdue by it, however busy the machine.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(400);

/// Answers a line with what `say` says; `$n` is the number of the question to this process, `$line`
/// the question.
fn asking(say: &str, patience: Duration, rest: Duration) -> Symbolizer<u32> {
    let script = format!(
        r#"sketch() {{ echo '{{"sketch":{{"code":{{"file":"known"}},"next":"'$1'"}}}}'; }}
        answer() {{ echo '{{"answer":{{"code":{{"function":"'$1'"}},"learnt":null,"ends":'${{2:-false}}'}}}}'; }}
        n=0
        while read -r line; do n=$((n + 1)); {say}; done"#
    );
    let command = ["/bin/sh", "-c", &script].map(OsString::from).to_vec();
    Symbolizer::of_command(command, patience, rest)
}

fn question(pid: u32) -> Question {
    Question {
        subject: SubjectId {
            pid,
            start_ticks: 1,
        },
        ip: 0x1000,
        is_behind: false,
        before: vec![],
        bytes: vec![],
        registers: None,
        in_file: None,
    }
}

fn ask(symbolizer: &mut Symbolizer<u32>, keys: impl IntoIterator<Item = u32>) {
    for key in keys {
        symbolizer
            .ask(key, Group::Cgroup(1), question(key), None)
            .unwrap();
    }
}

async fn function(symbolizer: &mut Symbolizer<u32>) -> (u32, Option<String>) {
    let (key, code) = symbolizer.next().await;
    (key, code.function)
}

fn named(key: u32, name: &str) -> (u32, Option<String>) {
    (key, Some(name.to_owned()))
}

#[tokio::test]
async fn answers_come_in_order_from_one_process() {
    let mut symbolizer = asking("answer f$n", LONG, LONG);
    ask(&mut symbolizer, 1..=3);
    for key in 1..=3 {
        assert_eq!(
            function(&mut symbolizer).await,
            named(key, &format!("f{key}"))
        );
    }
    assert_eq!(symbolizer.failures(), Failures::default());
}

#[tokio::test]
async fn dropping_the_wait_loses_nothing() {
    let mut symbolizer = asking("sketch x; sleep 0.05; answer f$n", LONG, LONG);
    ask(&mut symbolizer, 1..=3);
    let mut found = vec![];
    while found.len() < 3 {
        let moment = Duration::from_millis(3);
        if let Ok(answer) = tokio::time::timeout(moment, function(&mut symbolizer)).await {
            found.push(answer);
        }
    }
    assert_eq!(found, [named(1, "f1"), named(2, "f2"), named(3, "f3")]);
}

#[tokio::test]
async fn past_the_bound_questions_are_refused_and_counted() {
    let mut symbolizer = asking("answer f", LONG, LONG);
    ask(&mut symbolizer, 0..OPEN as u32);
    assert_eq!(
        symbolizer.ask(999, Group::Cgroup(1), question(0), None),
        Err(Busy(999))
    );
    assert_eq!(symbolizer.failures().refused, 1);
    // Another group's question takes the place of this one's newest.
    let newest = OPEN as u32 - 1;
    assert_eq!(
        symbolizer.ask(0, Group::Cgroup(2), question(0), None),
        Err(Busy(newest))
    );
    function(&mut symbolizer).await;
    assert_eq!(
        symbolizer.ask(0, Group::Cgroup(1), question(0), None),
        Ok(())
    );
}

#[tokio::test]
async fn who_takes_too_long_is_killed_and_holds_up_nobody_else() {
    // The second process says what it was told to avoid.
    let say = r#"case $line in
        *'"pid":2,'*) sketch the_file; exec sleep 1000;;
        *'"avoided":["the_file"]'*) answer avoids;;
        *) answer f$n;; esac"#;
    let mut symbolizer = asking(say, SHORT, LONG);
    ask(&mut symbolizer, 1..=3);
    assert_eq!(function(&mut symbolizer).await, named(1, "f1"));
    let (key, code) = symbolizer.next().await;
    assert_eq!((key, code.file.as_deref()), (2, Some("known")));
    assert_eq!(code.missing.as_deref(), Some("looking at it took too long"));
    assert_eq!(function(&mut symbolizer).await, named(3, "avoids"));
    let failures = symbolizer.failures();
    assert_eq!((failures.overdue, failures.died), (1, 0));
}

#[tokio::test]
async fn a_group_that_is_slow_waits_for_the_others() {
    let say = r#"case $line in *'"pid":1,'*|*'"pid":2,'*) exec sleep 1000;; *) answer f;; esac"#;
    let mut symbolizer = asking(say, SHORT, LONG);
    ask(&mut symbolizer, 1..=2);
    for key in 3..=4 {
        symbolizer
            .ask(key, Group::Cgroup(2), question(key), None)
            .unwrap();
    }
    let mut order = vec![];
    for _ in 0..4 {
        order.push(symbolizer.next().await.0);
    }
    assert_eq!(order, [1, 3, 4, 2]);
}

#[tokio::test]
async fn a_group_whose_processes_hang_is_asked_no_more_and_others_are() {
    let mut symbolizer = asking("answer f", LONG, LONG);
    for _ in 0..2 {
        // As one is that the kernel does not let end.
        let worker = symbolizer.workers.start().unwrap();
        symbolizer.workers.hold(worker, Group::Cgroup(1));
    }
    ask(&mut symbolizer, [1]);
    symbolizer
        .ask(2, Group::Cgroup(2), question(2), None)
        .unwrap();
    let (key, code) = symbolizer.next().await;
    assert_eq!((key, code.function), (1, None));
    let missing = code.missing.unwrap();
    assert!(missing.contains("its cgroup"), "{missing}");
    assert_eq!(function(&mut symbolizer).await, named(2, "f"));
    assert_eq!(symbolizer.failures().refused, 1);
}

#[tokio::test]
async fn who_dies_is_replaced_and_later_so_each_time() {
    let mut symbolizer = asking("sketch x; kill -SEGV $$", LONG, LONG);
    let start = Instant::now();
    ask(&mut symbolizer, 1..=4);
    for key in 1..=4 {
        let (found, code) = symbolizer.next().await;
        assert_eq!((found, code.file.as_deref()), (key, Some("known")));
        assert_eq!(
            code.missing.as_deref(),
            Some("the process that looked at it died")
        );
    }
    assert_eq!(symbolizer.failures().died, 4);
    // The first is replaced at once, the next two after 2 and 4 times the pause.
    assert!(start.elapsed() >= 6 * PAUSE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_says_nonsense_is_ended() {
    for nonsense in [
        "echo '{}'",
        "yes 2>/dev/null | tr -d '\\n' 2>/dev/null",
        "echo '\"answer\"'",
    ] {
        let mut symbolizer = asking(nonsense, LONG, LONG);
        ask(&mut symbolizer, [1]);
        let (_, code) = symbolizer.next().await;
        assert!(code.missing.unwrap().contains("died"), "{nonsense}");
    }
}

#[tokio::test]
async fn where_there_can_be_no_process_the_answer_says_so() {
    let command = vec![OsString::from("/nonexistent/program")];
    let mut symbolizer = Symbolizer::of_command(command, LONG, LONG);
    ask(&mut symbolizer, [1]);
    let (_, code) = symbolizer.next().await;
    let missing = code.missing.unwrap();
    assert!(missing.starts_with("no process to look at it"), "{missing}");
}

#[tokio::test]
async fn one_that_says_it_ends_is_followed_by_another() {
    let mut symbolizer = asking("answer f$n true", LONG, LONG);
    ask(&mut symbolizer, 1..=3);
    for key in 1..=3 {
        assert_eq!(function(&mut symbolizer).await, named(key, "f1"));
    }
    assert_eq!(symbolizer.failures(), Failures::default());
}

#[tokio::test]
async fn nothing_is_left_when_nothing_is_asked() {
    let mut symbolizer = asking("answer f$n", LONG, Duration::from_millis(100));
    ask(&mut symbolizer, [1]);
    assert_eq!(function(&mut symbolizer).await, named(1, "f1"));
    assert!(symbolizer.worker.is_some());
    let idle = tokio::time::timeout(SHORT, symbolizer.next()).await;
    assert!(idle.is_err());
    assert!(symbolizer.worker.is_none());
    assert!(symbolizer.workers.are_gone());
    // And begins anew.
    ask(&mut symbolizer, [2]);
    assert_eq!(function(&mut symbolizer).await, named(2, "f1"));
}
