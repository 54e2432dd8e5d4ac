use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::subjects::{
    SubjectId,
    vmm::{Evidence, VmNaming, Vmm},
};

/// Nothing is overdue by it, however busy the machine.
const LONG: Duration = Duration::from_secs(60);
/// Only who is stuck takes so long.
const SHORT: Duration = Duration::from_millis(700);

fn question(pid: u32) -> Question {
    Question {
        subject: SubjectId {
            pid,
            start_ticks: 1,
        },
        comm: "a".to_owned(),
        cgroup_id: 0,
        is_vm: pid >= 1000,
    }
}

fn identity(question: &Question, exe: Option<&str>) -> Identity {
    Identity {
        subject: question.subject,
        comm: question.comm.clone(),
        exe: exe.map(str::to_owned),
        command_line: None,
        cgroup: None,
        vm: VmNaming {
            name: question.comm.clone(),
            uuid: None,
            vmm: Vmm::Other,
            evidence: Evidence::Comm,
        },
        is_vm: question.is_vm,
        missing: vec![],
    }
}

/// Answers about odd pids do not come while `stuck` is set.
fn inquiries(stuck: &Arc<AtomicBool>, patience: Duration) -> Inquiries {
    let stuck = Arc::clone(stuck);
    Inquiries::new(
        Starter::Thread(Arc::new(move |question| {
            while question.subject.pid % 2 == 1 && stuck.load(Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            identity(question, Some("/bin/a"))
        })),
        Arc::new(|question, _why| identity(question, None)),
        patience,
    )
}

async fn answers(inquiries: &mut Inquiries, pids: &[u32]) -> Vec<(u32, bool)> {
    for pid in pids {
        inquiries.ask(question(*pid));
    }
    let mut answers = vec![];
    while !inquiries.is_idle() {
        let answer = inquiries.next().await;
        answers.push((answer.subject.pid, answer.exe.is_some()));
    }
    answers
}

#[tokio::test]
async fn everyone_is_answered_in_order() {
    let mut inquiries = inquiries(&Arc::default(), LONG);
    let pids: Vec<u32> = (0..100).collect();
    let expected: Vec<(u32, bool)> = pids.iter().map(|pid| (*pid, true)).collect();
    assert_eq!(answers(&mut inquiries, &pids).await, expected);
    assert_eq!(answers(&mut inquiries, &[7]).await, [(7, true)]);
    assert_eq!(inquiries.overdue(), 0);
}

#[tokio::test]
async fn vms_pass_processes() {
    let mut inquiries = inquiries(&Arc::default(), LONG);
    let pids: Vec<u32> = (0..100).chain([1000]).collect();
    let answers = answers(&mut inquiries, &pids).await;
    assert_eq!(answers.len(), 101);
    let place = answers.iter().position(|answer| answer.0 == 1000);
    assert_eq!(place, Some(AHEAD));
}

#[tokio::test]
async fn the_ended_do_not_wait() {
    let mut inquiries = inquiries(&Arc::default(), LONG);
    let pids: Vec<u32> = (0..100).collect();
    for pid in &pids {
        inquiries.ask(question(*pid));
    }
    let ended = |inquiries: &mut Inquiries, pid| {
        let identity = inquiries.answer_of_ended(question(pid).subject);
        identity.map(|identity| (identity.subject.pid, identity.exe))
    };
    assert_eq!(ended(&mut inquiries, 50), Some((50, None)));
    assert_eq!(ended(&mut inquiries, 50), None, "answered");
    assert_eq!(ended(&mut inquiries, 0), None, "somebody looks at it");
    let mut answers = vec![];
    while !inquiries.is_idle() {
        answers.push(inquiries.next().await.subject.pid);
    }
    let others: Vec<u32> = pids.into_iter().filter(|pid| *pid != 50).collect();
    assert_eq!(answers, others);
}

#[tokio::test]
async fn who_holds_the_answer_up_is_named_without_it_and_holds_up_nobody_else() {
    let stuck = Arc::new(AtomicBool::new(true));
    let mut inquiries = inquiries(&stuck, SHORT);
    let found = answers(&mut inquiries, &[2, 1, 4, 3, 6]).await;
    let expected = [(2, true), (1, false), (4, true), (3, false), (6, true)];
    assert_eq!(found, expected);
    assert_eq!(inquiries.overdue(), 2);
    stuck.store(false, Relaxed);
    // Answers that come too late are nobody's.
    assert_eq!(answers(&mut inquiries, &[8]).await, [(8, true)]);
}

#[tokio::test]
async fn with_too_many_stuck_the_kernel_sides_word_is_all_until_one_is_free() {
    let stuck = Arc::new(AtomicBool::new(true));
    let mut inquiries = inquiries(&stuck, SHORT);
    let odd: Vec<u32> = (0..STUCK_LIMIT as u32).map(|n| 2 * n + 1).collect();
    answers(&mut inquiries, &odd).await;
    assert_eq!(answers(&mut inquiries, &[2]).await, [(2, false)]);
    stuck.store(false, Relaxed);
    while Arc::strong_count(&inquiries.alive) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(answers(&mut inquiries, &[2]).await, [(2, true)]);
}
