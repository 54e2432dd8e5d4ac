//! The newest events, as the ring buffer told them.

use std::collections::VecDeque;

use splitlock_common::{
    Event, Hook,
    ledger::{VCPU_UNKNOWN, comm_bytes},
    record::Record,
};

use super::{sites::Sites, snapshot::Story};
use crate::{
    code::Code,
    host::clock::unix_seconds,
    subjects::{names::printable, vmm::vcpu::vcpu_number},
};

/// How many are kept.
const KEPT: usize = 64;

/// The newest events.
#[derive(Debug, Default)]
pub struct Stories(VecDeque<Record>);

impl Stories {
    /// Takes an event in; the oldest goes where there are too many.
    pub fn add(&mut self, record: Record) {
        if self.0.len() == KEPT {
            self.0.pop_back();
        }
        self.0.push_front(record);
    }

    /// All of them, newest first.
    pub fn tell(&self, sites: &Sites) -> Vec<Story> {
        self.0
            .iter()
            .filter_map(|record| sites.tell(record))
            .collect()
    }
}

/// A record as a story; `code` is what is known to be at its address. `None` for numbers that nobody
/// knows.
pub fn tell(record: &Record, code: Option<&Code>) -> Option<Story> {
    let event = Event::from_number(record.event)?;
    let comm = comm_bytes(&record.comm);
    let vcpu = match record.vcpu_id {
        // The hook does not tell it; a vCPU thread's name may.
        VCPU_UNKNOWN => vcpu_number(comm).filter(|_| event.is_guest()),
        number => Some(number),
    };
    Some(Story {
        time: unix_seconds(record.time_ns),
        event: event.name(),
        probe: Hook::ALL.get(record.hook as usize)?.name(),
        pid: record.subject.tgid,
        tid: record.tid,
        comm: printable(comm),
        cpu: record.cpu,
        vcpu,
        ip: (record.ip != 0).then(|| format!("{:#x}", record.ip)),
        function: code.and_then(Code::place),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use splitlock_common::{ledger::SubjectKey, record::KIND_EVENT};

    fn record(time_ns: u64) -> Record {
        Record {
            kind: KIND_EVENT,
            event: Event::AlignmentCheck as u32,
            hook: Hook::SignalGenerate as u32,
            cpu: 1,
            time_ns,
            subject: SubjectKey {
                tgid: 10,
                reserved: 0,
                start_ns: 5,
            },
            tid: 11,
            vcpu_id: VCPU_UNKNOWN,
            ip: 0x401000,
            cgroup_id: 0,
            comm: *b"evil\nname\0\0\0\0\0\0\0",
        }
    }

    #[test]
    fn the_newest_are_kept_newest_first() {
        let mut stories = Stories::default();
        for time in 1..=100 {
            stories.add(record(time * 1_000_000_000));
        }
        let told = stories.tell(&Sites::new(None));
        assert_eq!(told.len(), KEPT);
        assert!((told[0].time - told[1].time - 1.0).abs() < 0.01);
        assert_eq!(told[0].comm, "evil\\x0aname");
        assert_eq!(told[0].ip.as_deref(), Some("0x401000"));
        assert_eq!(told[0].vcpu, None);
        assert_eq!(told[0].event, "alignment_check");
        assert_eq!(told[0].probe, "signal_generate");
    }

    #[test]
    fn a_number_that_nobody_knows_is_not_told() {
        let mut stories = Stories::default();
        let mut odd = record(1);
        odd.event = 999;
        stories.add(odd);
        let mut odd = record(1);
        odd.hook = 999;
        stories.add(odd);
        assert!(stories.tell(&Sites::new(None)).is_empty());
    }
}
