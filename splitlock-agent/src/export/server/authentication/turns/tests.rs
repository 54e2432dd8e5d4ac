//! Guessers and a user who wants in between them.

use std::time::Duration;

use tokio::time::timeout;

use super::*;

fn peer(number: u32) -> Peer {
    Peer::User(Some(number))
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(test);
}

/// A hash that takes some 10 ms.
const COST: u32 = 8;

struct Guessing {
    turns: Arc<Turns>,
    refusals: Arc<Refusals>,
    hash: String,
}

impl Guessing {
    fn new() -> Self {
        let refusals = Arc::new(Refusals::default());
        Self {
            turns: Turns::new(Arc::clone(&refusals)),
            refusals,
            hash: bcrypt::hash("right", COST).unwrap(),
        }
    }

    fn ask(&self, client: u32, password: &str) -> Result<oneshot::Receiver<bool>, Verdict> {
        let (answer, answered) = oneshot::channel();
        self.turns.enter(Job {
            peer: peer(client),
            hash: self.hash.clone(),
            is_user: true,
            password: password.into(),
            answer,
        })?;
        Ok(answered)
    }

    fn wrong(&self) -> u64 {
        let mut counts = self.refusals.counts();
        counts.find(|(name, _)| *name == "credentials").unwrap().1
    }
}

#[test]
fn one_client_has_few_checks_waiting_and_all_together_not_many() {
    run(async {
        let guessing = Guessing::new();
        let kept: Vec<_> = (0..50).map(|_| guessing.ask(1, "wrong")).collect();
        let taken = kept.iter().filter(|asked| asked.is_ok()).count();
        // One may be under way already.
        assert!(
            (OF_ONE_CLIENT..=OF_ONE_CLIENT + 1).contains(&taken),
            "{taken}"
        );
        assert!(
            kept.iter()
                .any(|asked| asked.as_ref().err() == Some(&Verdict::Busy))
        );
        let crowd: Vec<_> = (2..200)
            .map(|client| guessing.ask(client, "wrong"))
            .collect();
        let taken = crowd.iter().filter(|asked| asked.is_ok()).count();
        assert!(taken <= WAITING + 1, "{taken}");
    });
}

#[test]
fn who_was_never_wrong_goes_before_guessers() {
    run(async {
        let guessing = Guessing::new();
        // Each of many clients has been wrong before, and they fill all places.
        for client in 0..40 {
            guessing
                .turns
                .lock()
                .failures
                .add(peer(client), Instant::now());
        }
        let mut crowd = vec![];
        for client in 0..40 {
            crowd.extend(guessing.ask(client, "wrong"));
        }
        let start = Moment::now();
        let right = guessing.ask(1000, "right").expect("a place");
        assert!(right.await.expect("an answer"));
        let time = start.elapsed();
        let wrong = guessing.wrong();
        assert!(wrong <= 2, "{wrong} guesses went before, in {time:?}");
    });
}

#[test]
fn a_guesser_is_not_checked_after_a_few_and_has_a_share_of_the_time() {
    run(async {
        let guessing = Guessing::new();
        let start = Moment::now();
        let mut busy = Duration::ZERO;
        let verdict = loop {
            match guessing.ask(1, "wrong") {
                Ok(answered) => {
                    let begin = Moment::now();
                    assert!(!answered.await.expect("an answer"));
                    busy += begin.elapsed();
                }
                Err(verdict) => break verdict,
            }
        };
        assert_eq!(verdict, Verdict::TooOften);
        let all = start.elapsed();
        assert!(
            (10..=12).contains(&guessing.wrong()),
            "{}",
            guessing.wrong()
        );
        eprintln!(
            "{} guesses in {all:?}, with waiting {busy:?}",
            guessing.wrong()
        );
        // Another client goes on.
        assert!(guessing.ask(2, "right").unwrap().await.unwrap());
    });
}

#[test]
fn after_a_wrong_one_there_is_a_rest() {
    run(async {
        let guessing = Guessing::new();
        let start = Moment::now();
        let first = guessing.ask(1, "wrong").unwrap();
        let second = guessing.ask(2, "wrong").unwrap();
        assert!(!first.await.unwrap());
        let one = start.elapsed();
        let early = timeout(one * 2, second).await;
        assert!(
            early.is_err(),
            "{early:?} after {:?}, one took {one:?}",
            start.elapsed()
        );
    });
}

#[test]
fn those_whose_client_has_gone_are_left_out() {
    run(async {
        let guessing = Guessing::new();
        for client in 0..10 {
            drop(guessing.ask(client, "wrong"));
        }
        assert!(guessing.ask(20, "right").unwrap().await.unwrap());
        assert!(guessing.wrong() <= 1, "{}", guessing.wrong());
    });
}
