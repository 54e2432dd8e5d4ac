//! What the agent and the process that looks at files say to each other: a JSON object a line.

use serde::{Deserialize, Serialize};

use super::{Code, Question};
use crate::subjects::SubjectId;

/// Bytes of the longest line that either side accepts.
pub const LINE_LIMIT: usize = 256 << 10;

/// What the agent asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The question.
    pub question: Question,
    /// Where the file that the kernel named may be, if its process has ended.
    pub places: Vec<Place>,
    /// What is not to be looked at, by [`Reply::Sketch`]'s names: it did not come to an end.
    pub avoided: Vec<String>,
}

/// Where a file was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its path, below its process's root.
    pub path: Vec<u8>,
    /// The process.
    pub subject: SubjectId,
}

/// What is said back: any number of sketches, and an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The answer if this process dies or takes too long from here on.
    Sketch {
        /// What is known so far.
        code: Box<Code>,
        /// What is looked at next.
        next: String,
    },
    /// The answer.
    Answer {
        /// What is known.
        code: Box<Code>,
        /// A file's build id, and where it is.
        learnt: Option<([u8; 20], Place)>,
        /// Whether this process ends now.
        ends: bool,
    },
}
