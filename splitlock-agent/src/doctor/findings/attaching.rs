//! Can an agent work here, and do its hooks see all?

use splitlock_common::{Armed, Hook, Mode};

use super::{Finding, Severity};
use crate::doctor::facts::{Facts, HookRow, HowKnown, TracefsState};

/// From here on BPF's memory is the cgroup's, and no longer locked memory of a user.
const CGROUP_MEMORY: (u32, u32) = (5, 11);
/// What the maps take by default, docs/operations.md.
const MAP_BYTES: u64 = 16 << 20;

pub fn find(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![];
    found.extend(cannot_work(facts));
    found.extend(rights(facts));
    found.extend(tracefs(facts));
    found.extend(functions(facts));
    found.extend(left_out(facts));
    found.extend(kernel_log(facts));
    found.extend(limits(facts));
    found
}

/// What ends an agent at its start.
fn cannot_work(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![];
    let costs = "the agent does not start here, so nothing is counted";
    if let Some(reason) = &facts.btf.reason {
        found.push(
            Finding::new(
                "no_btf",
                Severity::Critical,
                format!("the kernel does not describe its structures: {reason}"),
                costs,
            )
            .advice("needs a kernel with CONFIG_DEBUG_INFO_BTF=y, the default of all large distributions"),
        );
    }
    if facts.kernel.lockdown.as_deref() == Some("confidentiality") {
        found.push(
            Finding::new(
                "lockdown_confidentiality",
                Severity::Critical,
                "the kernel is locked down (confidentiality)",
                "BPF programs may not read the kernel's memory, so the agent does not start here",
            )
            .advice("boot with lockdown=integrity, which is no obstacle"),
        );
    }
    if let Some(reason) = &facts.rights.pid_namespace.reason {
        found.push(Finding::new(
            "pid_namespace",
            Severity::Critical,
            reason.clone(),
            "processes would be taken for others, so the agent does not start here",
        ));
    }
    // Anything else that ended the attaching.
    if let Some(failure) = &facts.hooks.failure
        && facts.rights.missing.is_none()
        && found.is_empty()
    {
        found.push(
            Finding::new(
                "cannot_attach",
                Severity::Critical,
                format!("the kernel refused the programs: {failure}"),
                costs,
            )
            .advice("splitlock-agent run --log.level debug shows the verifier's words"),
        );
    }
    found
}

fn rights(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![];
    if let Some(missing) = &facts.rights.missing {
        let (severity, costs) = if facts.hooks.known == HowKnown::Agent {
            (
                Severity::Note,
                "doctor could not attach anything itself; what it says of the hooks is the running \
                 agent's word",
            )
        } else {
            (
                Severity::Warning,
                "doctor could not attach anything, so that it does not know whether this kernel \
                 accepts the hooks; what it says of them is a plan",
            )
        };
        let what = missing.split(';').next().unwrap_or(missing);
        found.push(
            Finding::new("rights_missing", severity, format!("{what} here"), costs)
                .command("sudo splitlock-agent doctor"),
        );
        return found;
    }
    for lacking in &facts.rights.lacking {
        let (what, costs) = lacking.split_once(' ').unwrap_or(("", lacking));
        let (capability, costs) = match what {
            "without" => costs.split_once(' ').unwrap_or(("a capability", costs)),
            _ => ("a capability", *lacking),
        };
        found.push(
            Finding::new(
                "capability_lacking",
                Severity::Warning,
                format!("{capability} is not there"),
                costs,
            )
            .advice(format!(
                "as a service: AmbientCapabilities={capability} beside the others"
            )),
        );
    }
    found
}

fn tracefs(facts: &Facts) -> Option<Finding> {
    let command = "mount -t tracefs nodev /sys/kernel/tracing";
    match &facts.tracefs {
        TracefsState::Mounted(_) => None,
        TracefsState::Private => Some(
            Finding::new(
                "tracefs_private",
                Severity::Note,
                "tracefs is not mounted",
                "an agent with CAP_SYS_ADMIN mounts it for itself alone; one with fewer rights cannot",
            )
            .command(command),
        ),
        // Root's alone: no shortcoming of the host.
        TracefsState::Closed => None,
        TracefsState::Missing(_) if facts.rights.missing.is_some() => Some(
            Finding::new(
                "tracefs_unknown",
                Severity::Note,
                "tracefs is not mounted, or not for this user",
                "an agent with CAP_SYS_ADMIN mounts it for itself alone",
            )
            .command(command),
        ),
        TracefsState::Missing(reason) => Some(
            Finding::new(
                "tracefs_missing",
                Severity::Warning,
                reason.split(';').next().unwrap_or(reason),
                "no VM exits by reason on kernels that need a record's layout, no kprobes where they \
                 are set through it, and no second way for raw tracepoints",
            )
            .command(command),
        ),
    }
}

/// The split-lock functions are what counts warnings one by one.
fn functions(facts: &Facts) -> Option<Finding> {
    // A plan without rights says nothing of what the kernel accepts.
    if facts.hooks.known == HowKnown::Planned {
        return None;
    }
    let attached = facts.hooks.attached();
    let wanted: &[Hook] = match facts.detection.armed {
        Armed::BusLock => &[Hook::HandleBusLock],
        Armed::SplitLock | Armed::Unknown => {
            &[Hook::HandleUserSplitLock, Hook::HandleGuestSplitLock]
        }
    };
    let missing: Vec<&HookRow> = wanted
        .iter()
        .filter(|hook| !attached.contains(**hook))
        .filter_map(|hook| facts.hooks.rows.iter().find(|row| row.probe == hook.name()))
        .filter(|row| !is_left_out(row))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let names: Vec<&str> = missing.iter().map(|row| row.probe.as_str()).collect();
    let what = format!(
        "{} cannot be attached, by fentry or by kprobe",
        names.join(" and ")
    );
    let has_log = attached.contains(Hook::KernelLog);
    let (severity, costs) = match (facts.detection.mode, has_log) {
        (Mode::Fatal, _) => (
            Severity::Note,
            "locks are counted by the signals that they cause, which is as exact",
        ),
        (Mode::Off | Mode::Unsupported, _) => (
            Severity::Note,
            "with detection on, warnings would be counted from the kernel log at best",
        ),
        (_, true) => (
            Severity::Warning,
            "warnings are counted from the kernel log, ten lines in five seconds at most and on new \
             kernels one per thread; delays are not measured",
        ),
        (_, false) => (
            Severity::Critical,
            "nothing counts a warning: the kernel log cannot be read either",
        ),
    };
    Some(
        Finding::new("functions_missing", severity, what, costs).advice(
            "needs a kernel with CONFIG_KPROBES, or CONFIG_FUNCTION_TRACER and BTF; the hooks below \
             say why each way was refused",
        ),
    )
}

/// What the user's flags rule out is no shortcoming of the host, but worth a line.
fn left_out(facts: &Facts) -> Option<Finding> {
    let names: Vec<&str> = facts
        .hooks
        .rows
        .iter()
        .filter(|row| is_left_out(row))
        .map(|row| row.probe.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        Finding::new(
            "left_out",
            Severity::Warning,
            format!("flags leave out {}", names.join(", ")),
            "what only these hooks see is not counted",
        )
        .advice("leave out --probe and --kvm-exits")
    })
}

/// Whether flags keep a hook from being attached. The reason is `probes::plan`'s.
pub fn is_left_out(row: &HookRow) -> bool {
    row.via.is_none()
        && row.planned.is_empty()
        && row
            .refused
            .iter()
            .any(|refused| refused.contains("ruled out by --"))
}

fn kernel_log(facts: &Facts) -> Option<Finding> {
    let reason = facts.kernel_log.reason.as_ref()?;
    Some(
        Finding::new(
            "kernel_log_closed",
            Severity::Note,
            format!("the kernel log cannot be read: {reason}"),
            "what the kernel said at boot about detection is not known, nor what it reported before the \
             agent started",
        )
        .advice("as root, or with CAP_SYSLOG where kernel.dmesg_restrict is 1"),
    )
}

fn limits(facts: &Facts) -> Vec<Finding> {
    let limits = &facts.limits;
    let mut found = vec![];
    if limits.watched < limits.subjects {
        let wanted = limits
            .descriptors
            .unwrap_or_default()
            .saturating_add(limits.subjects - limits.watched);
        found.push(
            Finding::new(
                "few_descriptors",
                Severity::Warning,
                format!(
                    "the limit of file descriptors leaves {} for subjects that live at a time, and there \
                     may be {}",
                    limits.watched, limits.subjects
                ),
                "the end of each further process or VM is noticed at a scrape only",
            )
            .advice(format!("in the unit: LimitNOFILE={wanted}")),
        );
    }
    if facts.kernel.version < Some(CGROUP_MEMORY)
        && !limits.can_raise
        && limits.memlock.is_some_and(|memlock| memlock < MAP_BYTES)
    {
        let severity = if facts.hooks.known == HowKnown::Attached {
            Severity::Note
        } else {
            Severity::Warning
        };
        found.push(
            Finding::new(
                "little_locked_memory",
                severity,
                format!(
                    "locked memory is limited to {} KiB, on a kernel before 5.11",
                    limits.memlock.unwrap_or_default() >> 10
                ),
                "the kernel may refuse the maps, as it counts them as locked memory",
            )
            .advice("in the unit: LimitMEMLOCK=infinity"),
        );
    }
    found
}
