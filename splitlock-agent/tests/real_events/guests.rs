//! KVM guests that trap and exit.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Test,
    agent::{Agent, Metrics},
    events::{Child, Event, Results, kvm_guest::Guest},
    requirements::{
        self,
        Requirement::{AlignmentChecks, Kvm, Root},
    },
};

pub const TESTS: &[Test] = &[
    Test {
        name: "guests::alignment_checks_are_counted_exactly",
        needs: &[Root, Kvm, AlignmentChecks],
        run: alignment_checks_are_counted_exactly,
    },
    Test {
        name: "guests::returns_to_the_vmm_are_counted_exactly",
        needs: &[Root, Kvm],
        run: returns_to_the_vmm_are_counted_exactly,
    },
    Test {
        name: "guests::the_classic_tracepoints_count_the_same",
        needs: &[Root, Kvm, AlignmentChecks],
        run: the_classic_tracepoints_count_the_same,
    },
    Test {
        name: "guests::exits_are_left_uncounted_where_nobody_wants_them",
        needs: &[Root, Kvm],
        run: exits_are_left_uncounted_where_nobody_wants_them,
    },
    Test {
        name: "guests::interrupted_runs_are_restarts",
        needs: &[Root, Kvm],
        run: interrupted_runs_are_restarts,
    },
    Test {
        name: "guests::four_at_once_are_told_apart",
        needs: &[Root, Kvm],
        run: four_at_once_are_told_apart,
    },
    Test {
        name: "guests::rows_are_used_again_after_a_death",
        needs: &[Root, Kvm],
        run: rows_are_used_again_after_a_death,
    },
    Test {
        name: "guests::rows_are_used_again_while_the_vm_lives",
        needs: &[Root, Kvm],
        run: rows_are_used_again_while_the_vm_lives,
    },
    Test {
        name: "guests::threads_that_want_one_row_are_told_apart",
        needs: &[Root, Kvm],
        run: threads_that_want_one_row_are_told_apart,
    },
    Test {
        name: "guests::exits_without_a_row_are_lost_and_counted",
        needs: &[Root, Kvm],
        run: exits_without_a_row_are_lost_and_counted,
    },
];

/// The id of a VM without a UUID: pid and start time of its VMM.
pub fn vm_id(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the VMM runs");
    let after_comm = stat.rsplit(')').next().expect("a comm");
    let start = after_comm.split_whitespace().nth(19).expect("a start time");
    format!("{pid}-{start}")
}

/// The labels of a VM that has only its VMM's comm for a name.
pub fn vm(pid: u32, comm: &str) -> String {
    format!(r#"vm="{comm}",id="{}""#, vm_id(pid))
}

/// The returns to the VMM by reason, as the agent shows them.
fn userspace_exits(metrics: &Metrics, vm: &str) -> BTreeMap<String, u64> {
    let start = format!(r#"splitlock_vm_userspace_exits_total{{{vm},reason=""#);
    metrics
        .family("splitlock_vm_userspace_exits_total")
        .into_iter()
        .filter_map(|(series, value)| {
            let reason = series.strip_prefix(&start)?.strip_suffix("\"}")?;
            Some((reason.to_owned(), value as u64))
        })
        .collect()
}

/// The series of a VM, but the one that says whose it is.
fn counts<'a>(metrics: &'a Metrics, id: &str) -> BTreeMap<&'a str, f64> {
    let mut series = metrics.with_label("id", id);
    series.retain(|series, _| !series.starts_with("splitlock_vm_info{"));
    series
}

/// And as the VMM saw them.
fn seen(results: &Results) -> BTreeMap<String, u64> {
    results
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect()
}

/// Both sides agree, exactly. Only on a preemptible kernel may something be missing: what the
/// kernel says that it skipped, while a task that it preempted inside `bpf(2)` waited.
#[track_caller]
pub fn assert_exits(metrics: &Metrics, vm: &str, results: &Results) {
    let (shown, seen) = (userspace_exits(metrics, vm), seen(results));
    let sum = |exits: &BTreeMap<String, u64>| exits.values().sum::<u64>();
    let missed = requirements::missed(metrics, "kvm_userspace_exit");
    if missed == 0 {
        assert_eq!(shown, seen, "{vm}");
    } else {
        let missing = sum(&seen).saturating_sub(sum(&shown));
        assert!(missing <= missed, "{shown:?} of {seen:?}, {missed} missed");
    }
}

fn alignment_checks_are_counted_exactly() {
    let agent = Agent::start(&[]);
    for (count, vcpus) in [(1, 1), (2, 1), (1000, 1), (1000, 4)] {
        let event = Event::KvmGuest {
            guest: Guest::AlignmentCheck,
            count,
            vcpus,
        };
        let mut child = Child::spawn(&event, "guest-ac");
        let vm = vm(child.pid(), "guest-ac");
        let results = child.run();
        assert_eq!(results.get("shutdown"), count);
        let metrics = agent.metrics();
        let injected = format!("splitlock_vm_ac_injected_total{{{vm}}}");
        assert_eq!(metrics.count(&injected), count, "{injected}");
        assert_exits(&metrics, &vm, &results);
        assert!(metrics.family("splitlock_vm_traps_total").is_empty());
        // An alignment check of the guest is none of its VMM.
        let pid = child.pid().to_string();
        let mut series = metrics.with_label("pid", &pid);
        series.retain(|series, _| !series.starts_with("splitlock_vm_info{"));
        assert_eq!(series, BTreeMap::new());
        child.end();
        assert_eq!(agent.metrics().count(&injected), count, "after its end");
    }
}

fn returns_to_the_vmm_are_counted_exactly() {
    let agent = Agent::start(&[]);
    for (count, vcpus) in [(1, 1), (1000, 1), (10_000, 3)] {
        let event = Event::KvmGuest {
            guest: Guest::PortIo,
            count,
            vcpus,
        };
        let mut child = Child::spawn(&event, "guest-io");
        let vm = vm(child.pid(), "guest-io");
        let results = child.run();
        assert_eq!(results.get("io"), count);
        assert_exits(&agent.metrics(), &vm, &results);
        let snapshot = agent.snapshot();
        let row = snapshot["vms"]
            .as_array()
            .expect("vms is a list")
            .iter()
            .find(|row| row["pid"] == child.pid())
            .expect("the VM is in the snapshot");
        assert_eq!(row["vcpus"], vcpus);
        // The threads are called `vcpu-N`.
        let mut numbers: Vec<u64> = row["vcpu_threads"]
            .as_object()
            .expect("threads by their ids")
            .values()
            .filter_map(serde_json::Value::as_u64)
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..u64::from(vcpus)).collect::<Vec<_>>());
        assert_eq!(row["vm"], "guest-io");
    }
}

fn the_classic_tracepoints_count_the_same() {
    let hooks = ["kvm_inj_exception", "kvm_userspace_exit"];
    let choices = hooks.map(|hook| format!("--probe={hook}=tracepoint"));
    let agent = Agent::start(&choices.each_ref().map(String::as_str));
    for hook in hooks {
        assert_eq!(agent.via(hook), "tracepoint");
    }
    let event = Event::KvmGuest {
        guest: Guest::AlignmentCheck,
        count: 500,
        vcpus: 2,
    };
    let mut child = Child::spawn(&event, "guest-classic");
    let vm = vm(child.pid(), "guest-classic");
    let results = child.run();
    let metrics = agent.metrics();
    let injected = format!("splitlock_vm_ac_injected_total{{{vm}}}");
    assert_eq!(metrics.count(&injected), 500, "{injected}");
    assert_exits(&metrics, &vm, &results);
}

fn exits_are_left_uncounted_where_nobody_wants_them() {
    let agents = ["locks", "off"].map(|which| Agent::start(&["--kvm-exits", which]));
    let event = Event::KvmGuest {
        guest: Guest::PortIo,
        count: 100,
        vcpus: 1,
    };
    let mut child = Child::spawn(&event, "guest-quiet");
    assert_eq!(child.run().get("io"), 100);
    for agent in &agents {
        let metrics = agent.metrics();
        assert_eq!(counts(&metrics, &vm_id(child.pid())), BTreeMap::new());
        let lost = r#"splitlock_lost_total{cause="exit_unreadable"}"#;
        assert_eq!(metrics.get(lost), Some(0.0));
    }
    let [locks, off] = &agents;
    assert_ne!(locks.via("kvm_userspace_exit"), "none");
    assert_eq!(off.via("kvm_userspace_exit"), "none");
    assert_eq!(off.via("kvm_exit"), "none");
}

fn interrupted_runs_are_restarts() {
    let agent = Agent::start(&[]);
    let event = Event::KvmGuest {
        guest: Guest::Interrupted,
        count: 100,
        vcpus: 1,
    };
    let mut child = Child::spawn(&event, "guest-intr");
    let vm = vm(child.pid(), "guest-intr");
    let results = child.run();
    assert_eq!(results.get("restart"), 100);
    assert_exits(&agent.metrics(), &vm, &results);
}

fn four_at_once_are_told_apart() {
    let agent = Agent::start(&[]);
    let mut children: Vec<Child> = (1..=4)
        .map(|number| {
            let event = Event::KvmGuest {
                guest: Guest::PortIo,
                count: 1000 * number,
                vcpus: 2,
            };
            Child::spawn(&event, "guest-same")
        })
        .collect();
    for child in &mut children {
        child.go();
    }
    let results: Vec<Results> = children.iter_mut().map(Child::results).collect();
    let metrics = agent.metrics();
    for (child, results) in children.iter().zip(&results) {
        let vm = vm(child.pid(), "guest-same");
        assert_exits(&metrics, &vm, results);
    }
}

/// Held by tests that use few rows up: every agent's rows go to all guests of the host.
static FEW_ROWS: Mutex<()> = Mutex::new(());

#[must_use = "others wait as long as it lives"]
fn few_rows() -> MutexGuard<'static, ()> {
    // A test that failed with it has left nothing behind.
    FEW_ROWS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One row, many VMs, one after the other: each starts from nothing, none loses an exit.
fn rows_are_used_again_after_a_death() {
    let _turn = few_rows();
    // Other tests' guests want rows as well, so there are more than one.
    let agent = Agent::start(&["--limit.vcpus", "64", "--retention", "0s"]);
    for number in 0..80 {
        let event = Event::KvmGuest {
            guest: Guest::PortIo,
            count: 10 + number,
            vcpus: 1,
        };
        let mut child = Child::spawn(&event, "guest-row");
        let id = vm_id(child.pid());
        let vm = vm(child.pid(), "guest-row");
        let results = child.run();
        assert_exits(&agent.metrics(), &vm, &results);
        child.end();
        agent.wait_for("the end of the VM's series", |metrics| {
            metrics.with_label("id", &id).is_empty()
        });
    }
    let lost = r#"splitlock_lost_total{cause="exit_ledger_full"}"#;
    assert_eq!(agent.metrics().count(lost), 0);
}

/// One VM, one vCPU, thousands of threads that run it one after the other, and 256 rows.
fn rows_are_used_again_while_the_vm_lives() {
    let _turn = few_rows();
    let agent = Agent::start(&["--limit.vcpus", "256"]);
    let event = Event::KvmGuest {
        guest: Guest::Successive,
        count: 5000,
        vcpus: 1,
    };
    let mut child = Child::spawn(&event, "guest-threads");
    let vm = vm(child.pid(), "guest-threads");
    let results = child.run();
    assert_eq!(results.get("restart"), 5000);
    let metrics = agent.metrics();
    // The agent gives rows back when it hears of new ones; on a busy machine it may hear late.
    let lost = metrics.count(r#"splitlock_lost_total{cause="exit_ledger_full"}"#);
    let missed = requirements::missed(&metrics, "kvm_userspace_exit");
    let shown = userspace_exits(&metrics, &vm)["restart"];
    assert!(
        shown <= 5000 && shown + lost + missed >= 5000,
        "{shown}, {lost} lost, {missed} missed"
    );
    assert!(shown > 256, "{shown}: no row was used again");
}

/// A row is found by the lower bits of a thread's number: guests whose numbers have the same ones.
fn threads_that_want_one_row_are_told_apart() {
    const ROWS: u32 = 64;
    let _turn = few_rows();
    let agent = Agent::start(&["--limit.vcpus", &ROWS.to_string()]);
    let mut guests = vec![];
    for number in 1..=8 {
        let event = Event::KvmGuest {
            guest: Guest::PortIo,
            count: 100 * number,
            vcpus: 2,
        };
        guests.push(Child::spawn(&event, "guest-row"));
    }
    let mut wanted: BTreeMap<u32, u32> = BTreeMap::new();
    for guest in &mut guests {
        // Threads take the next numbers, as long as nobody else does.
        let start = Instant::now();
        while !next_thread().is_multiple_of(ROWS) {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "others are faster"
            );
        }
        let results = guest.run();
        let metrics = agent.metrics();
        assert_exits(&metrics, &vm(guest.pid(), "guest-row"), &results);
    }
    // Each again, now that all have rows.
    let metrics = agent.metrics();
    let snapshot = agent.snapshot();
    for (guest, number) in guests.iter().zip(1..) {
        let vm = vm(guest.pid(), "guest-row");
        assert_eq!(userspace_exits(&metrics, &vm)["io"], 100 * number, "{vm}");
        let id = vm_id(guest.pid());
        let rows = snapshot["vms"].as_array().expect("a list");
        let row = rows
            .iter()
            .find(|row| row["id"] == id.as_str())
            .expect("a VM");
        for thread in row["vcpu_threads"].as_object().expect("threads").keys() {
            let thread: u32 = thread.parse().expect("a number");
            *wanted.entry(thread % ROWS).or_default() += 1;
        }
    }
    assert!(wanted.values().any(|threads| *threads > 1), "{wanted:?}");
}

/// Starts a thread and lets it end: its number, of which the next one takes the following.
fn next_thread() -> u32 {
    // SAFETY: the call has no preconditions.
    let own = || unsafe { libc::syscall(libc::SYS_gettid) };
    let number = std::thread::spawn(own).join().expect("it does not panic");
    u32::try_from(number).expect("a thread's number") + 1
}

fn exits_without_a_row_are_lost_and_counted() {
    let agent = Agent::start(&["--limit.vcpus", "1"]);
    let guest = |count| Event::KvmGuest {
        guest: Guest::PortIo,
        count,
        vcpus: 1,
    };
    // A guest of another test may have the row; it dies, and then the next one here gets it.
    let start = Instant::now();
    let _holder = loop {
        let mut first = Child::spawn(&guest(10), "guest-first");
        first.run();
        if !counts(&agent.metrics(), &vm_id(first.pid())).is_empty() {
            break first;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "no guest got the row"
        );
    };
    let lost = r#"splitlock_lost_total{cause="exit_ledger_full"}"#;
    let before = agent.metrics().count(lost);
    let mut second = Child::spawn(&guest(500), "guest-second");
    let id = vm_id(second.pid());
    let returns: u64 = seen(&second.run()).values().sum();
    let metrics = agent.metrics();
    assert_eq!(counts(&metrics, &id), BTreeMap::new());
    assert!(metrics.count(lost) >= before + returns);
}
