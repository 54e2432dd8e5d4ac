//! What the agent and the process that looks at files say to each other: a JSON object a line.

use serde::{Deserialize, Serialize};

use super::{Code, Question};
use crate::subjects::{
    SubjectId,
    names::{PATH_LIMIT, printable_within},
};

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

impl Reply {
    /// Reads a line. Whoever wrote it reads files that tenants may have made to take it over, so its
    /// texts are made printable and bounded here, where the agent takes them in.
    ///
    /// # Errors
    /// It is none.
    pub fn read(line: &[u8]) -> serde_json::Result<Self> {
        let mut reply: Self = serde_json::from_slice(line)?;
        match &mut reply {
            Self::Sketch { code, next } => {
                code.fit();
                *next = printable_within(next.as_bytes(), PATH_LIMIT);
            }
            Self::Answer {
                code,
                learnt,
                ends: _,
            } => {
                code.fit();
                if learnt
                    .as_ref()
                    .is_some_and(|(_, place)| place.path.len() > PATH_LIMIT)
                {
                    *learnt = None;
                }
            }
        }
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        code::{InFile, Operand},
        subjects::names::printable,
    };

    fn texts(code: &Code) -> impl Iterator<Item = &String> {
        let Code {
            file,
            build_id,
            offset,
            function,
            function_offset,
            source,
            bytes,
            instruction,
            operand,
            missing,
        } = code;
        let all = [
            file,
            build_id,
            offset,
            function,
            function_offset,
            source,
            bytes,
            instruction,
            missing,
        ];
        let address = operand.as_ref().map(|operand| &operand.address);
        all.into_iter().flatten().chain(address)
    }

    fn hold(reply: &Reply) {
        let code = match reply {
            Reply::Sketch { code, next } => {
                assert!(next.len() <= PATH_LIMIT && *next == printable(next.as_bytes()));
                code
            }
            Reply::Answer { code, learnt, .. } => {
                assert!(
                    learnt
                        .iter()
                        .all(|(_, place)| place.path.len() <= PATH_LIMIT)
                );
                code
            }
        };
        for text in texts(code) {
            assert!(
                text.len() <= PATH_LIMIT && *text == printable(text.as_bytes()),
                "{text:?}"
            );
        }
        // What was read once is read so again.
        let line = serde_json::to_vec(reply).unwrap();
        assert_eq!(Reply::read(&line).unwrap(), *reply);
    }

    #[test]
    fn whoever_took_the_helper_over_cannot_write_to_a_terminal() {
        let line = r#"{"answer":{"code":{"function":"a\u001b[2Jb","missing":"\u202e",
            "operand":{"address":"0x1\n","modulo_64":1,"size":4,"crosses_line":false}},
            "learnt":null,"ends":false}}"#;
        let reply = Reply::read(line.as_bytes()).unwrap();
        hold(&reply);
        let Reply::Answer { code, .. } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(code.function.as_deref(), Some("a\\x1b[2Jb"));
        assert_eq!(code.operand.unwrap().address, "0x1\\x0a");
        let long = format!(
            r#"{{"sketch":{{"code":{{"source":"{0}"}},"next":"{0}"}}}}"#,
            "a".repeat(9000)
        );
        hold(&Reply::read(long.as_bytes()).unwrap());
    }

    #[test]
    fn fuzz_helper_reply() {
        bolero::check!(name = "helper_reply").for_each(|line: &[u8]| {
            if let Ok(reply) = Reply::read(line) {
                hold(&reply);
            }
        });
    }

    #[test]
    fn fuzz_helper_request() {
        bolero::check!(name = "helper_request").for_each(|bytes: &[u8]| {
            if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
                let again: Request =
                    serde_json::from_slice(&serde_json::to_vec(&request).unwrap()).unwrap();
                assert_eq!(again.question, request.question);
                assert_eq!(
                    (again.places, again.avoided),
                    (request.places, request.avoided)
                );
            }
            // What the agent asks is one line, whatever is in it.
            let mut words = bytes.chunks(8).map(|part| {
                part.iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte))
            });
            let mut next = || words.next().unwrap_or(0);
            let subject = SubjectId {
                pid: next() as u32,
                start_ticks: next(),
            };
            let request = Request {
                question: Question {
                    subject,
                    ip: next(),
                    is_behind: next() % 2 == 1,
                    before: bytes.to_vec(),
                    bytes: bytes.iter().rev().copied().collect(),
                    registers: Some([next(); 16]),
                    in_file: Some(InFile {
                        build_id: [next() as u8; 20],
                        offset: next(),
                    }),
                },
                places: vec![Place {
                    path: bytes.to_vec(),
                    subject,
                }],
                avoided: vec![String::from_utf8_lossy(bytes).into_owned()],
            };
            let line = serde_json::to_vec(&request).unwrap();
            assert!(!line.contains(&b'\n'));
            let again: Request = serde_json::from_slice(&line).unwrap();
            assert_eq!(again.question, request.question);
            assert_eq!(
                (again.places, again.avoided),
                (request.places, request.avoided)
            );
        });
    }

    #[test]
    fn an_answer_in_full_is_left_as_it_is() {
        let mut code = Code::of_kernel(Some(InFile {
            build_id: [7; 20],
            offset: 0x1000,
        }));
        code.operand = Some(Operand::new(0x103e, 4));
        let reply = Reply::Answer {
            code: Box::new(code),
            learnt: None,
            ends: true,
        };
        let line = serde_json::to_vec(&reply).unwrap();
        assert_eq!(Reply::read(&line).unwrap(), reply);
    }
}
