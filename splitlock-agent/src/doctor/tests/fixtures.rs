//! Hosts, as the tests judge them.

use splitlock_common::{Armed, Hook, Mode};

use super::super::facts::{
    Abilities, AgentState, AgentView, BootLoader, Check, Cpu, DetectionFacts, Facts, HookRow,
    Hooks, HowKnown, Kernel, Kvm, Limits, Rights, RunningAgent, TracefsState,
};
use crate::detection::{
    Monitor,
    evidence::{Evidence, Source},
};

/// A hypervisor as it should be: Intel with both features, a recent kernel in warn mode, all hooks
/// attached, its agent healthy.
pub fn intel() -> Facts {
    let hooks = Hooks {
        known: HowKnown::Attached,
        failure: None,
        rows: Hook::ALL.map(attached).to_vec(),
    };
    Facts {
        cpu: Cpu {
            model: "Intel(R) Xeon(R) Platinum 8480+".to_owned(),
            vendor: "GenuineIntel".to_owned(),
            split_lock_detect: Some(true),
            bus_lock_detect: Some(true),
            is_virtual: false,
            kvm_module: Some("kvm_intel"),
        },
        kernel: Kernel {
            release: "6.18.1".to_owned(),
            version: Some((6, 18)),
            preemptible: false,
            lockdown: Some("none".to_owned()),
            abilities: Some(Abilities {
                rearms_each_core: true,
                arms_all_makers: true,
            }),
            unprivileged_bpf_disabled: Some(2),
            parameter: None,
            parameter_files: vec![],
            boot_loader: Some(BootLoader::UpdateGrub),
        },
        detection: DetectionFacts {
            mode: Mode::Warn,
            source: Source::Memory,
            armed: Armed::SplitLock,
            mitigation: Some(true),
            sees_user: Some(true),
            sees_guest: Some(true),
        },
        kvm: Kvm {
            device: true,
            modules: vec!["kvm_intel".to_owned()],
            bus_lock_exits: Some(true),
        },
        rights: Rights::default(),
        tracefs: TracefsState::Mounted("/sys/kernel/tracing".to_owned()),
        btf: Check::default(),
        kernel_log: Check::default(),
        limits: Limits {
            descriptors: Some(524_288),
            watched: 524_032,
            subjects: 5096,
            memlock: None,
            can_raise: true,
        },
        agent: RunningAgent {
            url: "http://127.0.0.1:9839".to_owned(),
            is_expected: false,
            state: AgentState::Healthy,
            view: Some(AgentView {
                kernel: "6.18.1".to_owned(),
                hooks: hooks.rows.clone(),
                ..AgentView::default()
            }),
        },
        hooks,
    }
}

/// The same with AMD's CPU: bus locks alone, and none of guests.
pub fn zen5() -> Facts {
    let mut facts = intel();
    facts.cpu.model = "AMD EPYC 9755".to_owned();
    facts.cpu.vendor = "AuthenticAMD".to_owned();
    facts.cpu.split_lock_detect = Some(false);
    facts.cpu.kvm_module = Some("kvm_amd");
    facts.kvm.modules = vec!["kvm_amd".to_owned()];
    weighed(facts, None)
}

fn attached(hook: Hook) -> HookRow {
    HookRow {
        probe: hook.name().to_owned(),
        via: Some("kprobe".to_owned()),
        counts: "lower_bound".to_owned(),
        planned: vec![],
        refused: vec![],
    }
}

/// Gives the facts the boot parameter, and what follows from it and from the hooks.
pub fn weighed(mut facts: Facts, parameter: Option<&str>) -> Facts {
    facts.kernel.parameter = parameter.map(str::to_owned);
    let evidence = Evidence {
        cpu: facts.cpu.features(),
        parameter: facts.kernel.parameter.clone(),
        ..Evidence::default()
    };
    let monitor = Monitor::new(evidence, facts.detection.mitigation, facts.hooks.attached());
    let found = monitor.detection();
    facts.detection = DetectionFacts {
        mode: found.mode,
        armed: found.armed,
        sees_user: monitor.sees_user(),
        sees_guest: monitor.sees_guest(false),
        ..facts.detection
    };
    facts
}

/// Takes a kernel of another version, without anything of a later one.
pub fn on_kernel(mut facts: Facts, major: u32, minor: u32) -> Facts {
    facts.kernel.release = format!("{major}.{minor}.0");
    facts.kernel.version = Some((major, minor));
    facts.kernel.abilities = Some(Abilities {
        rearms_each_core: (major, minor) >= (6, 15),
        arms_all_makers: (major, minor) >= (6, 13),
    });
    if let Some(view) = &mut facts.agent.view {
        view.kernel.clone_from(&facts.kernel.release);
    }
    facts
}

/// Takes hooks off, with a reason.
pub fn without(mut facts: Facts, hooks: &[Hook], reason: &str) -> Facts {
    for row in &mut facts.hooks.rows {
        if hooks.iter().any(|hook| hook.name() == row.probe) {
            row.via = None;
            row.refused = vec![reason.to_owned()];
        }
    }
    let parameter = facts.kernel.parameter.clone();
    weighed(facts, parameter.as_deref())
}

/// As an unprivileged user finds it.
pub fn unprivileged(mut facts: Facts) -> Facts {
    let missing = "missing CAP_BPF (loading BPF programs); run splitlock-agent as root".to_owned();
    facts.hooks.known = HowKnown::Planned;
    facts.hooks.failure = Some(missing.clone());
    for row in &mut facts.hooks.rows {
        row.planned.extend(row.via.take());
    }
    facts.rights.missing = Some(missing);
    facts.tracefs = TracefsState::Closed;
    (facts.detection.sees_user, facts.detection.sees_guest) = (None, None);
    facts.agent = nobody();
    facts
}

/// No agent runs, and none was named.
pub fn nobody() -> RunningAgent {
    RunningAgent {
        url: "http://127.0.0.1:9839".to_owned(),
        is_expected: false,
        state: AgentState::Absent("Connection refused".to_owned()),
        view: None,
    }
}
