//! What an agent answers, as far as `top` reads it.
//!
//! The agent may be another version, and what is at a URL may be no agent: unknown fields are
//! ignored, absent ones are empty, and every text is made fit for a terminal as it is read.

use std::{collections::BTreeMap, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Visitor},
};

use crate::{
    subjects::names::{PATH_LIMIT, printable, printable_within},
    table::snapshot::SCHEMA,
};

/// Text from elsewhere that a terminal shows as it is: see [`printable_within`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Box<str>);

impl Text {
    /// Of any text.
    pub fn new(text: &str) -> Self {
        let is_plain = text.len() <= PATH_LIMIT && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        Self(if is_plain {
            text.into()
        } else {
            printable_within(text.as_bytes(), PATH_LIMIT).into()
        })
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text::new(text))
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

/// Counts by name.
pub type Named = BTreeMap<Text, u64>;

/// The body of `/api/v1/snapshot`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    pub schema: Option<u64>,
    pub taken_at: f64,
    pub host: Host,
    pub host_traps: Vec<Traps>,
    pub processes: Vec<Subject>,
    pub vms: Vec<Subject>,
    pub overflow_traps: Named,
    pub overflow_subjects: Named,
    pub lost: Named,
    pub tracked: BTreeMap<Text, Fullness>,
    pub probes: Vec<Probe>,
    pub recent: Vec<Story>,
}

/// What the host is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Host {
    pub kernel: Text,
    pub detection_mode: Text,
    pub detection_source: Text,
    pub sees: BTreeMap<Text, bool>,
    pub mitigation: Option<bool>,
}

/// Trapped locks of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Traps {
    pub origin: Text,
    pub trap: Text,
    pub outcome: Text,
    pub count: u64,
}

/// A process, or a VM; what the other kind has is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub pid: u32,
    pub start_ticks: u64,
    pub comm: Text,
    pub vm: Text,
    pub id: Text,
    pub vmm: Text,
    pub exe: Text,
    pub command_line: Text,
    pub cgroup: Text,
    pub unit: Text,
    pub container_id: Text,
    pub pod_uid: Text,
    pub started_at: f64,
    pub alive: bool,
    pub vcpus: u32,
    pub traps: Vec<Traps>,
    pub alignment_checks: u64,
    pub ac_injected: u64,
    pub delay_ns: u64,
    pub last_trap: Option<f64>,
    pub exits: Named,
    pub userspace_exits: Named,
    pub sites: Vec<Site>,
}

/// An instruction that trapped.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Site {
    pub event: Text,
    pub ip: Text,
    pub records: u64,
    pub last: f64,
    pub code: Option<Code>,
}

/// What is there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Code {
    pub file: Option<Text>,
    pub offset: Option<Text>,
    pub function: Option<Text>,
    pub function_offset: Option<Text>,
    pub source: Option<Text>,
    pub bytes: Option<Text>,
    pub instruction: Option<Text>,
    pub operand: Option<Operand>,
    pub missing: Option<Text>,
}

/// Its memory operand.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Operand {
    pub address: Text,
    pub modulo_64: u32,
    pub size: u32,
    pub crosses_line: bool,
}

/// How full a bounded set is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Fullness {
    pub used: u64,
    pub limit: u64,
}

/// One hook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Probe {
    pub probe: Text,
    pub via: Option<Text>,
    pub counts: Text,
}

/// One event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Story {
    pub time: f64,
    pub event: Text,
    pub pid: u32,
    pub tid: u32,
    pub comm: Text,
    pub cpu: u32,
    pub vcpu: Option<u32>,
    pub ip: Option<Text>,
    pub function: Option<Text>,
}

/// The body of `/api/v1/subjects/PID-START_TICKS`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Detail {
    pub schema: Option<u64>,
    pub taken_at: f64,
    pub sites: Vec<Site>,
    pub other_records: u64,
    pub recent: Vec<Story>,
}

/// What has a version.
pub trait Versioned: DeserializeOwned {
    /// As it says.
    fn schema(&self) -> Option<u64>;
}

impl Versioned for Answer {
    fn schema(&self) -> Option<u64> {
        self.schema
    }
}

impl Versioned for Detail {
    fn schema(&self) -> Option<u64> {
        self.schema
    }
}

/// Values of an answer, at up to some 700 bytes each; one of 10,000 subjects has a quarter of them.
const MOST_VALUES: usize = 2_000_000;

/// Whether there can be no more values than that: each but the first of its list is behind a comma.
fn is_bounded(body: &[u8]) -> bool {
    let begins = |byte: &&u8| matches!(byte, b',' | b'{' | b'[');
    body.iter().filter(begins).count() <= MOST_VALUES
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, in words fit for a terminal.
pub fn read<T: Versioned>(body: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Version {
        schema: Option<u64>,
    }
    if !is_bounded(body) {
        return Err(format!(
            "the answer is not a splitlock-agent's: it has more than {MOST_VALUES} values"
        ));
    }
    let read = serde_json::from_slice::<T>(body);
    let schema = match &read {
        Ok(answer) => answer.schema(),
        // Another version may well have another form.
        Err(_) => serde_json::from_slice(body).map_or(None, |Version { schema }| schema),
    };
    match (schema, read) {
        (Some(schema), _) if schema != u64::from(SCHEMA) => Err(format!(
            "the answer has version {schema} of the schema and this top reads version {SCHEMA}; use \
             the agent's own splitlock-agent top"
        )),
        // Messages quote what they found.
        (_, Err(error)) => Err(format!(
            "the answer is not a splitlock-agent's: {}",
            printable(error.to_string().as_bytes())
        )),
        (None, Ok(_)) => {
            Err("the answer is not a splitlock-agent's: it has no schema version".to_owned())
        }
        (Some(_), Ok(answer)) => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_ignored_and_absent_ones_empty() {
        let body = br#"{"schema":1,"new":{"x":[1]},"vms":[{"pid":7,"vm":"web1","vmm":"new-vmm"}]}"#;
        let answer: Answer = read(body).unwrap();
        assert_eq!(&*answer.vms[0].vm, "web1");
        assert_eq!(&*answer.vms[0].vmm, "new-vmm");
        assert!(answer.processes.is_empty());
    }

    #[test]
    fn another_version_is_named_whatever_its_form() {
        for body in [r#"{"schema":2}"#, r#"{"schema":2,"vms":"none"}"#] {
            let error = read::<Answer>(body.as_bytes()).unwrap_err();
            assert!(error.contains("version 2"), "{error}");
        }
    }

    #[test]
    fn what_is_no_agent_is_said_so() {
        for body in ["{}", "[]", "<html>", "", r#"{"schema":1,"vms":7}"#] {
            let error = read::<Answer>(body.as_bytes()).unwrap_err();
            assert!(error.contains("not a splitlock-agent's"), "{body}: {error}");
        }
    }

    #[test]
    fn what_would_swell_is_not_read() {
        let subjects = "{},".repeat(MOST_VALUES / 2);
        let body = format!(r#"{{"schema":1,"vms":[{subjects}{{}}]}}"#);
        let error = read::<Answer>(body.as_bytes()).unwrap_err();
        assert!(error.contains("more than 2000000 values"), "{error}");
    }

    #[test]
    fn no_text_reaches_a_terminal_as_it_came() {
        let body = r#"{"schema":1,"vms":[{"vm":"a\u001b[2Jb\u202e","exits":{"\u0007hlt":1}}]}"#;
        let answer: Answer = read(body.as_bytes()).unwrap();
        assert_eq!(&*answer.vms[0].vm, "a\\x1b[2Jb\\xe2\\x80\\xae");
        assert_eq!(&**answer.vms[0].exits.keys().next().unwrap(), "\\x07hlt");
        // Nor by way of an error.
        let error = read::<Answer>(br#"{"schema":1,"vms":"\u001b[2J"}"#).unwrap_err();
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }
}
