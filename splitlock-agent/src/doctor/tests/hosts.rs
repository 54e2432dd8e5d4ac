//! The hosts, with what is right about each.

use splitlock_common::{Hook, Mode};

use super::{
    super::{
        facts::{AgentRights, AgentState, Facts, TracefsState},
        verdict::Answer::{self, Degraded, No, Partly, Unknown, Yes},
    },
    fixtures::{intel, nobody, on_kernel, unprivileged, weighed, without, zen5},
};

const FUNCTIONS: [Hook; 4] = [
    Hook::HandleUserSplitLock,
    Hook::HandleGuestSplitLock,
    Hook::HandleBusLock,
    Hook::SplitLockWarn,
];

/// Changes a host.
fn but(mut facts: Facts, change: impl FnOnce(&mut Facts)) -> Facts {
    change(&mut facts);
    facts
}

/// An Intel host without either feature.
fn featureless() -> Facts {
    let facts = but(intel(), |facts| {
        facts.cpu.split_lock_detect = Some(false);
        facts.cpu.bus_lock_detect = Some(false);
    });
    weighed(facts, None)
}

/// Name, host, the answer, and what is found: those that are critical with `!`, notes in brackets.
pub fn hosts() -> Vec<(&'static str, Facts, Answer, &'static [&'static str])> {
    let no_kvm = but(intel(), |facts| {
        facts.kvm.modules.clear();
        facts.kvm.device = false;
    });
    vec![
        ("Intel, warn", intel(), Yes, &["(warn_mode_lower_bound)"]),
        (
            "Intel, fatal",
            weighed(intel(), Some("fatal")),
            Yes,
            &["(fatal_mode)"],
        ),
        (
            "Intel, off",
            weighed(intel(), Some("off")),
            No,
            &["!detection_off", "(guests_unseen)"],
        ),
        (
            "Intel, ratelimit",
            weighed(intel(), Some("ratelimit:10")),
            Partly,
            &["guests_unseen", "(ratelimit_mode)"],
        ),
        (
            "AMD Zen 5",
            zen5(),
            Partly,
            &["guests_unseen", "(bus_locks_only)"],
        ),
        (
            "AMD Zen 5, a VMM asked and its guest did it",
            but(zen5(), |facts| facts.detection.sees_guest = Some(true)),
            Yes,
            &["(bus_locks_only)"],
        ),
        (
            "AMD Zen 5 on 6.12",
            on_kernel(zen5(), 6, 12),
            Unknown,
            &[
                "bus_locks_perhaps_not_armed",
                "guests_unseen",
                "(bus_locks_only)",
            ],
        ),
        (
            "AMD Zen 5 on 6.12 with a later kernel's change",
            but(on_kernel(zen5(), 6, 12), |facts| {
                facts.kernel.abilities = intel().kernel.abilities;
            }),
            Partly,
            &["guests_unseen", "(bus_locks_only)"],
        ),
        (
            "no feature",
            featureless(),
            No,
            &["!cpu_without_detection", "(guests_unseen)"],
        ),
        (
            "a mode without a feature",
            but(featureless(), |facts| facts.detection.mode = Mode::Fatal),
            No,
            &["!nothing_armed"],
        ),
        (
            "a VM",
            but(featureless(), |facts| facts.cpu.is_virtual = true),
            No,
            &["!cpu_without_detection", "(guests_unseen)"],
        ),
        (
            "5.10",
            on_kernel(intel(), 5, 10),
            Degraded,
            &["first_per_thread"],
        ),
        (
            "5.10, fatal",
            on_kernel(weighed(intel(), Some("fatal")), 5, 10),
            Yes,
            &["(fatal_mode)"],
        ),
        (
            "tracefs is not mounted",
            but(intel(), |facts| facts.tracefs = TracefsState::Private),
            Yes,
            &["(warn_mode_lower_bound)", "(tracefs_private)"],
        ),
        (
            "no tracefs",
            but(intel(), |facts| {
                facts.tracefs = TracefsState::Missing("it is not there; run: mount".to_owned());
            }),
            Degraded,
            &["tracefs_missing", "(warn_mode_lower_bound)"],
        ),
        (
            "no BTF",
            but(unprivileged(intel()), |facts| {
                facts.rights.missing = None;
                facts.btf = Err::<(), _>("no such file".to_owned()).into();
                facts.hooks.failure = Some("no such file".to_owned());
            }),
            No,
            &["!no_btf", "(warn_mode_lower_bound)", "(no_agent)"],
        ),
        (
            "no KVM",
            no_kvm.clone(),
            Yes,
            &["(warn_mode_lower_bound)", "(kvm_not_loaded)"],
        ),
        (
            "no KVM, ratelimit",
            weighed(no_kvm.clone(), Some("ratelimit:10")),
            Yes,
            &["(ratelimit_mode)", "(kvm_not_loaded)"],
        ),
        (
            "no virtualisation at all",
            but(no_kvm, |facts| facts.cpu.kvm_module = None),
            Yes,
            &["(warn_mode_lower_bound)"],
        ),
        (
            "lockdown confidentiality",
            but(unprivileged(intel()), |facts| {
                facts.rights.missing = None;
                facts.kernel.lockdown = Some("confidentiality".to_owned());
                facts.hooks.failure = Some("unknown func bpf_probe_read".to_owned());
            }),
            No,
            &[
                "!lockdown_confidentiality",
                "(warn_mode_lower_bound)",
                "(no_agent)",
            ],
        ),
        (
            "lockdown integrity",
            but(intel(), |facts| {
                facts.kernel.lockdown = Some("integrity".to_owned());
            }),
            Yes,
            &["(warn_mode_lower_bound)"],
        ),
        (
            "the kernel refuses",
            but(unprivileged(intel()), |facts| {
                facts.rights.missing = None;
                facts.hooks.failure = Some("no memory".to_owned());
            }),
            No,
            &["!cannot_attach", "(warn_mode_lower_bound)", "(no_agent)"],
        ),
        (
            "unprivileged",
            unprivileged(intel()),
            Unknown,
            &["rights_missing", "(warn_mode_lower_bound)", "(no_agent)"],
        ),
        (
            "unprivileged, off",
            but(unprivileged(weighed(intel(), Some("off"))), |facts| {
                facts.detection.sees_user = Some(false);
                facts.detection.sees_guest = Some(false);
            }),
            No,
            &[
                "!detection_off",
                "rights_missing",
                "(guests_unseen)",
                "(no_agent)",
            ],
        ),
        (
            "in another pid namespace",
            but(intel(), |facts| {
                facts.rights.pid_namespace = Err::<(), _>("not the host's".to_owned()).into();
            }),
            No,
            &["!pid_namespace", "(warn_mode_lower_bound)"],
        ),
        (
            "a capability less",
            but(intel(), |facts| {
                facts.rights.lacking = vec!["without CAP_SYSLOG the log is closed"];
            }),
            Degraded,
            &["capability_lacking", "(warn_mode_lower_bound)"],
        ),
        (
            "no fentry and no kprobes",
            without(intel(), &FUNCTIONS, "kprobe: not there"),
            Degraded,
            &["functions_missing", "(warn_mode_lower_bound)"],
        ),
        (
            "no fentry and no kprobes, fatal",
            without(
                weighed(intel(), Some("fatal")),
                &FUNCTIONS,
                "kprobe: not there",
            ),
            Yes,
            &["(fatal_mode)", "(functions_missing)"],
        ),
        (
            "no fentry, no kprobes, no log",
            without(
                without(intel(), &FUNCTIONS, "kprobe: not there"),
                &[Hook::KernelLog],
                "kmsg: closed",
            ),
            No,
            &["!functions_missing", "(warn_mode_lower_bound)"],
        ),
        (
            "KVM's tracepoints are refused",
            without(intel(), &[Hook::KvmExit], "tracepoint: no format"),
            Degraded,
            &["kvm_hooks_missing", "(warn_mode_lower_bound)"],
        ),
        (
            "flags leave KVM's exits out",
            without(
                intel(),
                &[Hook::KvmExit],
                "tracepoint: ruled out by --kvm-exits=off",
            ),
            Degraded,
            &["left_out", "(warn_mode_lower_bound)"],
        ),
        (
            "KVM that has no exits",
            but(intel(), |facts| {
                facts.kvm.modules = vec!["kvm_pvm".to_owned()];
            }),
            Yes,
            &["(warn_mode_lower_bound)", "(kvm_exit_never_fires)"],
        ),
        (
            "no mitigation on 6.12",
            on_kernel(
                but(intel(), |facts| facts.detection.mitigation = Some(false)),
                6,
                12,
            ),
            Degraded,
            &["mitigation_off", "(warn_mode_lower_bound)"],
        ),
        (
            "no mitigation on 6.12 with a later kernel's change",
            but(on_kernel(intel(), 6, 12), |facts| {
                facts.detection.mitigation = Some(false);
                facts.kernel.abilities = intel().kernel.abilities;
            }),
            Yes,
            &["(warn_mode_lower_bound)", "(mitigation_off)"],
        ),
        (
            "no mitigation on 6.18",
            but(intel(), |facts| facts.detection.mitigation = Some(false)),
            Yes,
            &["(warn_mode_lower_bound)", "(mitigation_off)"],
        ),
        (
            "no mitigation, fatal",
            but(weighed(intel(), Some("fatal")), |facts| {
                facts.detection.mitigation = Some(false);
            }),
            Yes,
            &["(fatal_mode)"],
        ),
        (
            "no flags to be read",
            weighed(
                but(intel(), |facts| facts.cpu.split_lock_detect = None),
                None,
            ),
            Unknown,
            &["mode_unknown"],
        ),
        (
            "no agent",
            but(intel(), |facts| facts.agent = nobody()),
            Yes,
            &["(warn_mode_lower_bound)", "(no_agent)"],
        ),
        (
            "no agent where one was named",
            but(intel(), |facts| {
                facts.agent = nobody();
                facts.agent.is_expected = true;
            }),
            Degraded,
            &["no_agent", "(warn_mode_lower_bound)"],
        ),
        (
            "an agent that is not ready",
            but(intel(), |facts| {
                facts.agent.state = AgentState::Unhealthy("503 no ledger".to_owned());
            }),
            Degraded,
            &["agent_unhealthy", "(warn_mode_lower_bound)"],
        ),
        (
            "an agent that came before KVM",
            but(intel(), |facts| {
                let view = facts.agent.view.as_mut().unwrap();
                view.hooks[Hook::KvmExit as usize].via = None;
            }),
            Degraded,
            &["agent_behind", "(warn_mode_lower_bound)"],
        ),
        (
            "an agent whose flags leave a hook out",
            but(intel(), |facts| {
                let view = facts.agent.view.as_mut().unwrap();
                let own = &mut view.hooks[Hook::KvmExit as usize];
                own.via = None;
                own.refused = vec!["tracepoint: ruled out by --probe".to_owned()];
            }),
            Degraded,
            &["agent_leaves_out", "(warn_mode_lower_bound)"],
        ),
        (
            "an agent that keeps its rights",
            but(intel(), |facts| {
                facts.agent.view.as_mut().unwrap().rights = Some(AgentRights {
                    capabilities: "CAP_SYS_ADMIN CAP_BPF".to_owned(),
                    ..AgentRights::default()
                });
            }),
            Degraded,
            &["agent_keeps_rights", "(warn_mode_lower_bound)"],
        ),
        (
            "an agent whose keeper died, on a kernel without Landlock",
            but(intel(), |facts| {
                facts.agent.view.as_mut().unwrap().rights = Some(AgentRights {
                    dropped: true,
                    kept: vec!["the kernel has no Landlock".to_owned()],
                    down: vec!["keeper".to_owned()],
                    ..AgentRights::default()
                });
            }),
            Degraded,
            &[
                "agent_without_helpers",
                "(warn_mode_lower_bound)",
                "(agent_keeps_some_rights)",
            ],
        ),
        (
            "another host's agent",
            but(intel(), |facts| {
                facts.agent.view.as_mut().unwrap().kernel = "5.4.0".to_owned();
            }),
            Degraded,
            &["agent_elsewhere", "(warn_mode_lower_bound)"],
        ),
        (
            "few descriptors",
            but(intel(), |facts| {
                facts.limits.descriptors = Some(1024);
                facts.limits.watched = 768;
            }),
            Degraded,
            &["few_descriptors", "(warn_mode_lower_bound)"],
        ),
        (
            "little locked memory, and it was enough",
            on_kernel(
                but(weighed(intel(), Some("fatal")), |facts| {
                    facts.limits.memlock = Some(64 << 10);
                    facts.limits.can_raise = false;
                }),
                5,
                10,
            ),
            Yes,
            &["(fatal_mode)", "(little_locked_memory)"],
        ),
    ]
}
