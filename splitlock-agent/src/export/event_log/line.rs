//! One line of the event log: what happened, to whom, where, and what is there.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::{
    code::Code,
    table::{rows::Who, snapshot::Story},
};

/// One line. What is not known or does not apply is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    /// When, RFC 3339, UTC, microseconds.
    pub time: String,
    /// What, as in `/api/v1/snapshot`.
    pub event: &'static str,
    /// `user` or `guest`; absent for what is no lock.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub origin: &'static str,
    /// `split_lock` or `bus_lock`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub trap: &'static str,
    /// What the kernel did about it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub outcome: &'static str,
    /// The VM's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vm: String,
    /// Its unique id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What runs it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub vmm: &'static str,
    /// The group leader's comm.
    pub comm: String,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's comm.
    pub thread: String,
    /// vCPU number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<u32>,
    /// CPU it happened on.
    pub cpu: u32,
    /// The file that the process runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exe: String,
    /// Its cgroup.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
    /// systemd unit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Container, as kube-state-metrics writes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The pod's uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// Address of the instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// What is there.
    #[serde(flatten)]
    pub at: At,
    /// The hook that saw it.
    pub probe: &'static str,
    /// Records since the last line that have none; what the kernel side wrote no record of is not in it.
    #[serde(skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

/// What is at the address: [`Code`], flat.
#[derive(Clone, Debug, Default, Serialize)]
pub struct At {
    /// The function, and the offset in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Source file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its build id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Offset in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// The instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// Address of its operand at the first record of this site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operand: Option<String>,
    /// That modulo the 64 bytes of a cache line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operand_modulo_64: Option<u8>,
    /// Whether it crosses a cache line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crosses_line: Option<bool>,
}

impl At {
    /// Of what is known.
    pub fn new(code: Option<&Code>) -> Self {
        let Some(code) = code else {
            return Self::default();
        };
        Self {
            function: code.place(),
            source: code.source.clone(),
            file: code.file.clone(),
            build_id: code.build_id.clone(),
            offset: code.offset.clone(),
            instruction: code.instruction.clone(),
            operand: code.operand.as_ref().map(|operand| operand.address.clone()),
            operand_modulo_64: code.operand.as_ref().map(|operand| operand.modulo_64),
            crosses_line: code.operand.as_ref().map(|operand| operand.crosses_line),
        }
    }
}

impl Line {
    /// Of an event, with who it happened to and what is there, as far as they are known.
    pub fn new(story: Story, who: Option<Who>, code: Option<&Code>, suppressed: u64) -> Self {
        let lock = splitlock_common::Event::ALL
            .into_iter()
            .find(|event| event.name() == story.event)
            .and_then(splitlock_common::Event::lock);
        let Story {
            time,
            event,
            probe,
            pid,
            tid,
            comm,
            cpu,
            vcpu,
            ip,
            function: _,
        } = story;
        let mut line = Self {
            time: rfc3339(time),
            event,
            origin: lock.map_or("", |lock| lock.origin.name()),
            trap: lock.map_or("", |lock| lock.trap.name()),
            outcome: lock.map_or("", |lock| lock.outcome.name()),
            comm: comm.clone(),
            pid,
            tid,
            thread: comm,
            vcpu,
            cpu,
            ip,
            at: At::new(code),
            probe,
            suppressed,
            ..Self::default()
        };
        let Some(who) = who else { return line };
        line.comm = who.comm.to_string();
        line.exe = who.owner.exe.clone();
        line.cgroup = who.owner.cgroup.clone();
        line.unit = who.owner.unit.clone();
        line.container_id = who.owner.container_id.clone();
        line.pod_uid = who.owner.pod_uid.clone();
        if let Some((vm, id, vmm)) = who.vm {
            (line.vm, line.id, line.vmm) = (vm, id, vmm.name());
        }
        line
    }

    /// It in words, for who reads the journal.
    pub fn message(&self) -> String {
        let who = if self.vm.is_empty() {
            format!("{} ({})", self.comm, self.pid)
        } else {
            format!("VM {} ({})", self.vm, self.id)
        };
        let what = if self.trap.is_empty() {
            self.event.replace('_', " ")
        } else {
            format!("{}, {}", self.trap.replace('_', " "), self.outcome)
        };
        let place = match (&self.at.function, &self.ip) {
            (Some(function), _) => format!(" in {function}"),
            (None, Some(ip)) => format!(" at {ip}"),
            (None, None) => String::new(),
        };
        let source = self
            .at
            .source
            .as_ref()
            .map_or_else(String::new, |source| format!(" ({source})"));
        format!("{who}: {what}{place}{source}")
    }
}

fn rfc3339(seconds: f64) -> String {
    // The number is exact to a quarter of a microsecond.
    let since = Duration::from_micros((seconds * 1e6).round() as u64);
    humantime::format_rfc3339_micros(UNIX_EPOCH + since).to_string()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{code::Operand, subjects::vmm::Vmm, table::snapshot::Owner};

    fn story(event: &'static str) -> Story {
        Story {
            time: 1_795_371_402.452,
            event,
            probe: "handle_user_split_lock",
            pid: 10,
            tid: 11,
            comm: "worker\\x0a".to_owned(),
            cpu: 3,
            vcpu: None,
            ip: Some("0x401000".to_owned()),
            function: None,
        }
    }

    fn who(vm: bool) -> Who {
        Who {
            comm: "leader".into(),
            owner: Arc::new(Owner {
                unit: "batch.service".to_owned(),
                ..Owner::default()
            }),
            vm: vm.then(|| ("web1".to_owned(), "uuid".to_owned(), Vmm::Qemu)),
        }
    }

    #[test]
    fn a_process_with_its_function() {
        let code = Code {
            function: Some("spin".to_owned()),
            function_offset: Some("0x4".to_owned()),
            source: Some("spin.c:7".to_owned()),
            operand: Some(Operand::new(0x103e, 4)),
            ..Code::default()
        };
        let story = story("user_split_lock_warned");
        let line = Line::new(story, Some(who(false)), Some(&code), 3);
        assert_eq!(
            line.message(),
            "leader (10): split lock, warned in spin+0x4 (spin.c:7)"
        );
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(json["time"], "2026-11-22T18:16:42.452000Z");
        for (key, value) in [
            ("trap", "split_lock"),
            ("origin", "user"),
            ("outcome", "warned"),
            ("unit", "batch.service"),
            ("function", "spin+0x4"),
            ("thread", "worker\\x0a"),
        ] {
            assert_eq!(json[key], value);
        }
        assert_eq!(json["operand_modulo_64"], 62);
        assert_eq!(json["crosses_line"], true);
        assert_eq!(json["suppressed"], 3);
        assert!(json.get("vm").is_none() && json.get("vcpu").is_none());
    }

    #[test]
    fn a_guest_and_what_is_no_lock() {
        let mut story = story("guest_ac_injected");
        story.ip = None;
        let line = Line::new(story, Some(who(true)), None, 0);
        assert_eq!(line.message(), "VM web1 (uuid): guest ac injected");
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(
            (&json["vm"], &json["vmm"]),
            (&"web1".into(), &"qemu".into())
        );
        for absent in ["trap", "ip", "function", "suppressed"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn nobody_knows_who_it_was() {
        let line = Line::new(story("alignment_check"), None, None, 0);
        assert_eq!(
            line.message(),
            "worker\\x0a (10): alignment check at 0x401000"
        );
    }
}
