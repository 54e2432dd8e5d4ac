//! A child of the keeper's that says who processes are, and which have VMs.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};

use serde::{Deserialize, Serialize};

use crate::subjects::{
    identity::{Identity, Question},
    paths::Paths,
    resolver::Resolver,
    vm_search::{self, FoundVm, Look},
};

/// Bytes of the longest question.
const LINE_LIMIT: usize = 64 << 10;

/// What the worker asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Who is it?
    Who(Question),
    /// Who has a VM?
    Vms(Look),
}

/// What is answered, each to its request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Who`].
    Identity(Box<Identity>),
    /// To [`Request::Vms`].
    Found(Vec<FoundVm>),
}

/// Answers questions from standard input on standard output until there are no more.
pub fn serve(paths: &Paths) -> io::Result<()> {
    let resolver = Resolver::new(paths.clone());
    let mut questions = BufReader::new(io::stdin().lock());
    let mut answers = io::stdout().lock();
    let mut line = vec![];
    loop {
        line.clear();
        let mut limited = (&mut questions).take(LINE_LIMIT as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_slice(&line)? {
            Request::Who(question) => Reply::Identity(Box::new(resolver.answer(&question))),
            Request::Vms(look) => Reply::Found(vm_search::look(resolver.paths(), look)?),
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        answers.write_all(&text)?;
        answers.flush()?;
    }
}
