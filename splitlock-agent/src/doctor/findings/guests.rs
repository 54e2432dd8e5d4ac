//! Would a guest's lock be noticed, and are its exits counted?

use splitlock_common::{Armed, Hook, Mode};

use super::{Finding, RESTART, Severity, attaching::is_left_out};
use crate::doctor::facts::{Facts, HowKnown};

pub fn find(facts: &Facts) -> Vec<Finding> {
    if !facts.kvm.runs_guests() {
        return no_guests(facts).into_iter().collect();
    }
    let mut found = vec![];
    found.extend(unseen(facts));
    found.extend(hooks(facts));
    if !facts.kvm.fires_exits() {
        found.push(Finding::new(
            "kvm_exit_never_fires",
            Severity::Note,
            format!(
                "KVM here is {}, which does not fire kvm_exit",
                facts.kvm.modules.join(", ")
            ),
            "VMs have no exits by reason, only returns to their VMM",
        ));
    }
    found
}

fn no_guests(facts: &Facts) -> Option<Finding> {
    let module = facts.cpu.kvm_module?;
    Some(
        Finding::new(
            "kvm_not_loaded",
            Severity::Note,
            format!("the CPU can run guests, but {module} is not loaded"),
            "no VMs run here by KVM; an agent that is started before KVM is loaded sees none of their \
             exits",
        )
        .advice("if this host is to run VMs")
        .command(format!("modprobe {module} && {RESTART}")),
    )
}

fn unseen(facts: &Facts) -> Option<Finding> {
    let detection = &facts.detection;
    if detection.sees_guest != Some(false) {
        return None;
    }
    let (severity, what) = match (detection.mode, detection.armed) {
        // Said already, for processes too.
        (Mode::Unknown, _) => return None,
        (Mode::Off | Mode::Unsupported, _) => (
            Severity::Note,
            "the host notices no guest's lock by itself".to_owned(),
        ),
        (Mode::Ratelimit, _) => (
            Severity::Warning,
            "in ratelimit mode the host notices no guest's lock by itself".to_owned(),
        ),
        (Mode::Warn | Mode::Fatal, Armed::BusLock) => (
            Severity::Warning,
            format!(
                "this CPU traps no split locks of guests{}",
                if facts.cpu.vendor == "AuthenticAMD" {
                    ", as no AMD CPU does"
                } else {
                    ""
                }
            ),
        ),
        // The hooks are short, which is said where they are.
        (Mode::Warn | Mode::Fatal, _) => return None,
    };
    let found = Finding::new(
        "guests_unseen",
        severity,
        what,
        "a guest that locks the bus is noticed only if its VMM asks KVM for exits on bus locks",
    );
    Some(match facts.kvm.bus_lock_exits {
        Some(true) => found.advice(
            "start each VM with -machine bus-lock-ratelimit=N (QEMU; N bus locks a second are let \
             through): the agent counts them from the first one on",
        ),
        Some(false) => found.advice(
            "this KVM offers no such exits: they need Intel's bus-lock detection in VMX, or AMD's \
             bus-lock threshold and Linux 6.16",
        ),
        None => found.advice(
            "whether this KVM offers such exits could not be asked: /dev/kvm cannot be opened",
        ),
    })
}

/// Hooks on KVM that this kernel refused.
fn hooks(facts: &Facts) -> Option<Finding> {
    // Without rights tracefs is closed, and the plan is short of what needs it.
    if facts.hooks.known == HowKnown::Planned {
        return None;
    }
    let attached = facts.hooks.attached();
    let missing: Vec<&str> = [Hook::KvmExit, Hook::KvmUserspaceExit, Hook::KvmInjException]
        .into_iter()
        .filter(|hook| !attached.contains(*hook))
        .map(Hook::name)
        .filter(|name| {
            facts
                .hooks
                .rows
                .iter()
                .any(|row| row.probe == *name && !is_left_out(row))
        })
        .collect();
    (!missing.is_empty()).then(|| {
        Finding::new(
            "kvm_hooks_missing",
            Severity::Warning,
            format!("{} cannot be attached", missing.join(", ")),
            "what only these see is not counted: VM exits by reason and guests' bus locks (kvm_exit), \
             returns to the VMM (kvm_userspace_exit), exceptions handed to a guest \
             (kvm_inj_exception)",
        )
        .advice("the hooks below say why each way was refused; most often tracefs or BTF is missing")
    })
}
