//! A process that locks and a VM whose guest exits, both for seconds, while something happens to the
//! machine.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use super::super::{
    agent::{Agent, Metrics},
    events::{Child, Event, kvm_guest::Guest, trap_module::Trap},
    guests::{assert_exits, vm},
    requirements::missed,
    traps::{event, series},
};

/// How many of each.
#[derive(Clone, Copy)]
pub struct Amount {
    /// Split locks, over four threads.
    pub locks: u64,
    /// Writes of the guest to a port.
    pub exits: u64,
}

/// Makes them in fatal mode, which is the caller's to set, and does something again and again
/// meanwhile, after a count of how often it was done before. Checks that both are counted exactly, and
/// gives how often it was done before both had ended.
#[track_caller]
pub fn disturbed(agent: &Agent, amount: Amount, disturb: impl Fn(u32) + Sync) -> u32 {
    let Amount { locks, exits } = amount;
    let mut locker = Child::spawn(&event(Trap::UserSplitLock, locks, 4), "busy-locker");
    let locked = series(Trap::UserSplitLock, &locker, "busy-locker", "sigbus");
    let mut vmm = Child::spawn(&io(exits), "busy-guest");
    let vm = vm(vmm.pid(), "busy-guest");
    let is_over = AtomicBool::new(false);
    let (made, seen, times) = thread::scope(|scope| {
        locker.go();
        vmm.go();
        let disturbing = scope.spawn(|| {
            let mut times = 0;
            while !is_over.load(Relaxed) {
                disturb(times);
                times += 1;
            }
            // The last one may have ended after them.
            times - 1
        });
        let results = (locker.results(), vmm.results());
        is_over.store(true, Relaxed);
        let times = disturbing.join().expect("the machine does as it is told");
        (results.0, results.1, times)
    });
    assert_eq!(made.get("made"), locks);
    assert_eq!(made.get("bus_adraln"), locks);
    assert_eq!(seen.get("io"), exits);
    let metrics = agent.metrics();
    assert_locks(&metrics, &locked, locks);
    assert_exits(&metrics, &vm, &seen);
    // Both live still, and have to be known for who they are.
    for (family, pid) in [("process", locker.pid()), ("vm", vmm.pid())] {
        let family = format!("splitlock_{family}_info");
        let label = format!(r#"pid="{pid}""#);
        assert!(
            metrics
                .family(&family)
                .keys()
                .any(|series| series.contains(&label)),
            "{family} of {pid}: {metrics:#?}"
        );
    }
    times
}

/// As many as were made; on a preemptible kernel but for what it says that it skipped.
#[track_caller]
pub fn assert_locks(metrics: &Metrics, series: &str, made: u64) {
    let counted = metrics.count(series);
    let skipped = missed(metrics, "handle_user_split_lock") + missed(metrics, "signal_generate");
    assert!(
        counted <= made && counted + skipped >= made,
        "{series} {counted} of {made}, {skipped} skipped"
    );
}

/// A guest that writes to a port.
pub fn io(count: u64) -> Event {
    Event::KvmGuest {
        guest: Guest::PortIo,
        count,
        vcpus: 1,
    }
}

/// The agent's hooks by classic tracepoints alone, which hang on perf events of one CPU.
pub const CLASSIC: [&str; 7] = [
    "--probe=handle_user_split_lock=none",
    "--probe=handle_guest_split_lock=none",
    "--probe=split_lock_warn=none",
    "--probe=signal_generate=tracepoint",
    "--probe=kvm_inj_exception=tracepoint",
    "--probe=kvm_userspace_exit=tracepoint",
    "--probe=kvm_exit=tracepoint",
];

/// The same by kprobes, where there are no tracepoints.
pub const KPROBES: [&str; 3] = [
    "--probe=handle_user_split_lock=kprobe",
    "--probe=handle_guest_split_lock=kprobe",
    "--probe=split_lock_warn=kprobe",
];
