//! Answers to several clients, by an agent that only counts what it is asked.

use std::sync::Weak;

use super::*;
use crate::export::exposition::tests::snapshot;

const METRICS: Form = Form {
    what: What::Metrics,
    gzip: false,
};

/// Answers, and each snapshot that was given for them.
struct Given {
    answers: Answers,
    snapshots: Arc<std::sync::Mutex<Vec<Weak<Snapshot>>>>,
}

impl Given {
    /// Needs a runtime around it.
    fn start() -> Self {
        let (requests, mut questions) = mpsc::channel::<Request>(16);
        let snapshots = Arc::new(std::sync::Mutex::new(vec![]));
        let given = Arc::clone(&snapshots);
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                sleep(Duration::from_millis(20)).await;
                let snapshot = Arc::new(snapshot());
                given.lock().unwrap().push(Arc::downgrade(&snapshot));
                // Who asked may be gone.
                let Request::Snapshot(answer) = question else {
                    panic!("another question");
                };
                let _ = answer.send(Ok(snapshot));
            }
        });
        Self {
            answers: Answers::new(requests, Service::default()),
            snapshots,
        }
    }

    fn count(&self) -> usize {
        self.snapshots.lock().unwrap().len()
    }

    fn held(&self) -> usize {
        let snapshots = self.snapshots.lock().unwrap();
        snapshots
            .iter()
            .filter(|one| one.strong_count() > 0)
            .count()
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn those_who_wait_share_one_answer() {
    run(async {
        let given = Given::start();
        let (first, second, third, packed) = tokio::join!(
            given.answers.get(METRICS),
            given.answers.get(METRICS),
            given.answers.get(METRICS),
            given.answers.get(Form {
                gzip: true,
                ..METRICS
            }),
        );
        // All came before the first snapshot was asked for, or while it was made.
        assert!(given.count() <= 2, "{} snapshots", given.count());
        let (second, third) = (second.unwrap(), third.unwrap());
        assert_eq!(second.as_ptr(), third.as_ptr(), "encoded once");
        assert!(second.starts_with(b"# HELP"));
        assert_eq!(packed.unwrap()[..2], [0x1f, 0x8b]);
        assert!(first.is_ok());
        // One answer is held, and no snapshot.
        assert_eq!(given.held(), 0);
        drop((first, second, third));
        assert_eq!(given.answers.budget.available_permits(), BUDGET);
    });
}

#[test]
fn an_answer_is_never_older_than_its_question() {
    run(async {
        let given = Given::start();
        for number in 1..4 {
            given.answers.get(METRICS).await.unwrap();
            assert_eq!(given.count(), number);
        }
        // A health check, too.
        given.answers.check().await.unwrap();
        assert_eq!(given.count(), 4);
    });
}

/// Those who are no users may ask for it.
#[test]
fn health_takes_one_reading_a_second_at_most() {
    run(async {
        let given = Given::start();
        let start = Instant::now();
        for _ in 0..50 {
            let both = tokio::join!(given.answers.check(), given.answers.check());
            assert!(both.0.is_ok() && both.1.is_ok());
        }
        let most = start.elapsed().as_secs() as usize + 1;
        assert!(given.count() <= most, "{} readings", given.count());
        sleep(HEALTH_TIME).await;
        let before = given.count();
        given.answers.check().await.unwrap();
        assert_eq!(given.count(), before + 1);
    });
}

#[test]
fn who_leaves_while_it_is_made_leaves_nothing() {
    run(async {
        let given = Given::start();
        let left = timeout(Duration::from_millis(5), given.answers.get(METRICS)).await;
        assert!(left.is_err());
        given.answers.get(METRICS).await.unwrap();
        assert_eq!(given.held(), 0);
        assert_eq!(given.answers.budget.available_permits(), BUDGET);
    });
}

#[test]
fn where_the_memory_is_held_it_says_so_and_recovers() {
    run(async {
        let given = Given::start();
        let all = given.answers.enter(vec![0; 2 * BUDGET]).unwrap();
        let start = Instant::now();
        let refused = given.answers.get(METRICS).await;
        assert!(matches!(refused, Err(Failure::Busy)), "{refused:?}");
        assert!(start.elapsed() < 2 * PATIENCE);
        // Health takes no memory.
        given.answers.check().await.unwrap();
        let (answer, ()) = tokio::join!(given.answers.get(METRICS), async {
            sleep(PATIENCE / 2).await;
            drop(all);
        });
        answer.unwrap();
        assert_eq!(given.answers.budget.available_permits(), BUDGET);
    });
}

#[test]
fn without_an_agent_there_is_no_answer() {
    run(async {
        let (requests, _) = mpsc::channel(1);
        let answers = Answers::new(requests, Service::default());
        let refused = answers.get(METRICS).await;
        assert!(matches!(refused, Err(Failure::Gone)), "{refused:?}");
        let refused = answers.check().await;
        assert!(matches!(refused, Err(Failure::Gone)), "{refused:?}");
    });
}
