//! The plan: which rungs to try on this host, in which order, and what the programs must be told.
//! A function of the host's facts; attaching may still refuse a planned rung.

use splitlock_common::Hook;

use super::catalogue::{
    EXIT_PROTOTYPE_WITH_REASON, INJ_PROTOTYPE_WITH_REINJECTED, LADDERS, Need, RecordField, Rung,
    TRACEPOINTS, Via,
};
use super::choice::{Choice, KvmExits};
use crate::host::{Host, format::Format, vcpu::VcpuLayout};

/// A way that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which way.
    pub via: Via,
    /// Why not.
    pub reason: String,
}

/// What to try for one hook.
#[derive(Debug)]
pub struct PlannedHook {
    /// The hook.
    pub hook: Hook,
    /// Rungs whose needs are met, best first.
    pub rungs: Vec<&'static Rung>,
    /// Rungs whose needs are not met.
    pub refusals: Vec<Refusal>,
}

/// What to try on a host.
#[derive(Debug)]
pub struct Plan {
    /// One for each hook, in the order of their numbers.
    pub hooks: Vec<PlannedHook>,
    /// Program globals and their values.
    pub globals: Vec<(&'static str, u32)>,
    /// Which exits of guests are counted.
    pub kvm_exits: KvmExits,
}

impl Plan {
    /// Leaves of each hook that was chosen for only the chosen way.
    pub fn restrict(&mut self, choices: &[Choice]) {
        for Choice { hook, via } in choices {
            self.rule_out(*hook, *via, "--probe");
        }
    }

    /// Counts of the exits of guests only these.
    pub fn count_exits(&mut self, which: KvmExits) {
        self.kvm_exits = which;
        self.globals.push(("EXIT_COUNTED", which.global()));
        if which == KvmExits::Off {
            for hook in KvmExits::HOOKS {
                self.rule_out(hook, None, "--kvm-exits=off");
            }
        }
    }

    /// Drops all rungs of a hook but one, or all.
    fn rule_out(&mut self, hook: Hook, keep: Option<Via>, flag: &str) {
        let Some(planned) = self.hooks.iter_mut().find(|planned| planned.hook == hook) else {
            return;
        };
        let (kept, dropped): (_, Vec<&'static Rung>) = planned
            .rungs
            .drain(..)
            .partition(|rung| Some(rung.via) == keep);
        planned.rungs = kept;
        planned.refusals.extend(dropped.iter().map(|rung| Refusal {
            via: rung.via,
            reason: format!("ruled out by {flag}"),
        }));
    }
}

/// Makes the plan for a host.
pub fn plan(host: &Host) -> Plan {
    let hooks = LADDERS
        .iter()
        .map(|ladder| {
            let mut planned = PlannedHook {
                hook: ladder.hook,
                rungs: vec![],
                refusals: vec![],
            };
            for rung in ladder.rungs {
                match rung.needs.iter().try_for_each(|need| check(host, need)) {
                    Ok(()) => planned.rungs.push(rung),
                    Err(reason) => planned.refusals.push(Refusal {
                        via: rung.via,
                        reason,
                    }),
                }
            }
            // What can be preempted inside loses events; it is cheaper, but comes last.
            planned.rungs.sort_by_key(|rung| match rung.via {
                Via::RawTracepoint => host.preemptible_tracepoints(),
                Via::Fentry => host.preemptible,
                Via::Tracepoint | Via::Kprobe | Via::Kmsg => false,
            });
            planned
        })
        .collect();
    Plan {
        hooks,
        globals: globals(host),
        kvm_exits: KvmExits::All,
    }
}

fn check(host: &Host, need: &Need) -> Result<(), String> {
    match need {
        Need::Layout => host.layout.as_ref().map(|_| ()).map_err(Clone::clone),
        Need::VcpuLayout => host.vcpu.as_ref().map(|_| ()).map_err(Clone::clone),
        Need::Prototype(tracepoint, accepted) => {
            let found = host
                .prototypes
                .get(tracepoint)
                .ok_or("prototype not read")?
                .as_ref()?;
            if accepted.contains(&found.as_str()) {
                Ok(())
            } else {
                Err(format!(
                    "{} has the prototype ({found}), known are ({})",
                    tracepoint.name,
                    accepted.join("), (")
                ))
            }
        }
        Need::Fields(tracepoint, fields) => {
            let format = host
                .formats
                .get(tracepoint)
                .ok_or("format not read")?
                .as_ref()?;
            fields
                .iter()
                .filter(|field| !field.optional)
                .try_for_each(|field| offset(format, field).map(|_| ()))
                .map_err(|reason| format!("record of {}: {reason}", tracepoint.name))
        }
    }
}

fn offset(format: &Format, field: &RecordField) -> Result<u32, String> {
    match format.field(field.name) {
        Some(found) if found.size == field.size => Ok(found.offset),
        Some(found) => Err(format!(
            "{} has {} bytes, expected {}",
            field.name, found.size, field.size
        )),
        None => Err(format!("no field {}", field.name)),
    }
}

fn globals(host: &Host) -> Vec<(&'static str, u32)> {
    let mut globals = vec![];
    if let Ok(layout) = &host.layout {
        globals.extend([
            ("EXIT_TASK_START", layout.task_start_boottime),
            ("TASK_GROUP_LEADER", layout.task_group_leader),
            ("TASK_START_BOOTTIME", layout.task_start_boottime),
            ("TASK_COMM", layout.task_comm),
            ("TASK_STACK", layout.task_stack),
            ("TASK_BLOCKED", layout.task_blocked),
            ("TASK_PENDING", layout.task_pending),
            (
                "HAS_TASK_PT_REGS",
                u32::from(layout.stack_to_pt_regs.is_none()),
            ),
            ("PT_REGS_IP", layout.pt_regs_ip),
            ("PT_REGS_FLAGS", layout.pt_regs_flags),
            ("PT_REGS_ORIG_AX", layout.pt_regs_orig_ax),
            ("SIGINFO_CODE", layout.siginfo_code),
        ]);
        if layout.has_current_task_btf {
            globals.push(("EXIT_TASK_PID", layout.task_pid));
        }
        globals.extend(
            layout
                .stack_to_pt_regs
                .map(|offset| ("STACK_TO_PT_REGS", offset)),
        );
    }
    globals.extend(host.vcpu.iter().flat_map(vcpu_globals));
    for need in LADDERS
        .iter()
        .flat_map(|ladder| ladder.rungs)
        .flat_map(|rung| rung.needs)
    {
        if let Need::Fields(tracepoint, fields) = need
            && let Some(Ok(format)) = host.formats.get(tracepoint)
        {
            globals.extend(
                fields
                    .iter()
                    .filter_map(|field| Some((field.global, offset(format, field).ok()?))),
            );
        }
    }
    globals.extend([
        (
            "INJ_HAS_REINJECTED",
            has_prototype(host, Hook::KvmInjException, INJ_PROTOTYPE_WITH_REINJECTED),
        ),
        (
            "EXIT_HAS_REASON",
            has_prototype(host, Hook::KvmExit, EXIT_PROTOTYPE_WITH_REASON),
        ),
    ]);
    globals
}

fn vcpu_globals(layout: &VcpuLayout) -> Vec<(&'static str, u32)> {
    let VcpuLayout {
        vcpu_id,
        rip,
        vmx_exit_reason,
        svm,
    } = *layout;
    let mut globals = vec![("VCPU_ID", vcpu_id)];
    if let Some(rip) = rip {
        globals.extend([
            ("VCPU_RIP", rip.offset),
            ("VCPU_REGS_AVAILABLE", rip.available),
            ("VCPU_RIP_AVAILABLE", rip.available_mask),
        ]);
    }
    globals.extend(vmx_exit_reason.map(|offset| ("VMX_EXIT_REASON", offset)));
    if let Some(svm) = svm {
        globals.extend([("SVM_VMCB", svm.vmcb), ("VMCB_EXIT_CODE", svm.exit_code)]);
    }
    globals
}

/// 1 if the tracepoint of `hook` has this prototype.
fn has_prototype(host: &Host, hook: Hook, prototype: &str) -> u32 {
    let found = TRACEPOINTS
        .iter()
        .filter(|tracepoint| tracepoint.name == hook.name())
        .filter_map(|tracepoint| host.prototypes.get(tracepoint)?.as_ref().ok())
        .any(|found| found == prototype);
    u32::from(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{KernelLayout, Tracepoint, vcpu::SvmExitCode};
    use std::collections::BTreeMap;

    const LAYOUT: KernelLayout = KernelLayout {
        task_pid: 10,
        task_group_leader: 1,
        task_start_boottime: 2,
        task_comm: 3,
        task_stack: 4,
        task_blocked: 11,
        task_pending: 12,
        has_current_task_btf: true,
        stack_to_pt_regs: None,
        pt_regs_ip: 6,
        pt_regs_flags: 7,
        pt_regs_orig_ax: 8,
        general_registers: None,
        siginfo_code: 9,
    };

    const VCPU: VcpuLayout = VcpuLayout {
        vcpu_id: 21,
        rip: None,
        vmx_exit_reason: None,
        svm: Some(SvmExitCode {
            vmcb: 22,
            exit_code: 23,
        }),
    };

    fn tracepoint(name: &str) -> Tracepoint {
        *TRACEPOINTS.iter().find(|found| found.name == name).unwrap()
    }

    fn prototype(name: &str) -> &'static str {
        match name {
            "signal_generate" => "int, struct kernel_siginfo *, struct task_struct *, int, int",
            "kvm_inj_exception" => INJ_PROTOTYPE_WITH_REINJECTED,
            "kvm_userspace_exit" => "__u32, int",
            _ => "struct kvm_vcpu *, u32",
        }
    }

    fn format(name: &str) -> &'static str {
        match name {
            "signal_generate" => {
                "field:int sig;offset:8;size:4;\nfield:int code;offset:16;size:4;\n"
            }
            "kvm_inj_exception" => {
                "field:u8 exception;offset:8;size:1;\nfield:bool reinjected;offset:16;size:1;\n"
            }
            "kvm_userspace_exit" => {
                "field:__u32 reason;offset:8;size:4;\nfield:int errno;offset:12;size:4;\n"
            }
            _ => {
                "field:unsigned int exit_reason;offset:8;size:4;\n\
                 field:unsigned long guest_rip;offset:16;size:8;\nfield:u32 isa;offset:24;size:4;\n\
                 field:unsigned int vcpu_id;offset:56;size:4;\n"
            }
        }
    }

    fn host() -> Host {
        Host {
            kernel_release: "6.18.0".to_owned(),
            cpu: None,
            parameter: None,
            arming_is_doubtful: false,
            preemptible: false,
            layout: Ok(LAYOUT),
            vcpu: Ok(VCPU),
            formats: TRACEPOINTS
                .iter()
                .map(|found| (*found, Ok(Format::parse(format(found.name)))))
                .collect(),
            prototypes: TRACEPOINTS
                .iter()
                .map(|found| (*found, Ok(prototype(found.name).to_owned())))
                .collect(),
        }
    }

    fn ways(plan: &Plan, hook: Hook) -> Vec<Via> {
        plan.hooks[hook as usize]
            .rungs
            .iter()
            .map(|rung| rung.via)
            .collect()
    }

    fn global(plan: &Plan, name: &str) -> Option<u32> {
        let values: Vec<u32> = plan
            .globals
            .iter()
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| *value)
            .collect();
        assert!(values.len() <= 1, "{name} is set {} times", values.len());
        values.first().copied()
    }

    #[test]
    fn a_full_host_tries_every_rung_best_first() {
        let plan = plan(&host());
        assert_eq!(
            ways(&plan, Hook::SignalGenerate),
            [Via::RawTracepoint, Via::Tracepoint]
        );
        assert_eq!(
            ways(&plan, Hook::KvmExit),
            [Via::RawTracepoint, Via::Tracepoint]
        );
        assert_eq!(
            ways(&plan, Hook::HandleUserSplitLock),
            [Via::Fentry, Via::Kprobe]
        );
        assert!(plan.hooks.iter().all(|hook| hook.refusals.is_empty()));
        assert_eq!(global(&plan, "TASK_COMM"), Some(3));
        assert_eq!(global(&plan, "SIGNAL_CODE"), Some(16));
        assert_eq!(global(&plan, "EXIT_VCPU_ID"), Some(56));
        assert_eq!(global(&plan, "INJ_REINJECTED"), Some(16));
        assert_eq!(global(&plan, "INJ_HAS_REINJECTED"), Some(1));
    }

    #[test]
    fn where_tracepoints_are_preemptible_the_classic_ones_come_first() {
        let mut host = host();
        host.kernel_release = "7.3.4+deb13-cloud-amd64".to_owned();
        let plan = plan(&host);
        for hook in [
            Hook::SignalGenerate,
            Hook::KvmInjException,
            Hook::KvmUserspaceExit,
            Hook::KvmExit,
        ] {
            assert_eq!(ways(&plan, hook), [Via::Tracepoint, Via::RawTracepoint]);
        }
        assert_eq!(
            ways(&plan, Hook::HandleUserSplitLock),
            [Via::Fentry, Via::Kprobe]
        );
    }

    #[test]
    fn where_the_kernel_is_preemptible_kprobes_come_before_fentry() {
        let mut host = host();
        host.preemptible = true;
        let plan = plan(&host);
        assert_eq!(
            ways(&plan, Hook::HandleUserSplitLock),
            [Via::Kprobe, Via::Fentry]
        );
        assert_eq!(
            ways(&plan, Hook::SignalGenerate),
            [Via::RawTracepoint, Via::Tracepoint]
        );
    }

    #[test]
    fn an_older_record_without_an_optional_field_will_do() {
        let mut host = host();
        host.formats.insert(
            tracepoint("kvm_inj_exception"),
            Ok(Format::parse("field:u8 exception;offset:8;size:1;\n")),
        );
        host.prototypes.insert(
            tracepoint("kvm_inj_exception"),
            Ok("unsigned int, bool, unsigned int".to_owned()),
        );
        let plan = plan(&host);
        assert_eq!(
            ways(&plan, Hook::KvmInjException),
            [Via::RawTracepoint, Via::Tracepoint]
        );
        assert_eq!(global(&plan, "INJ_REINJECTED"), None);
        assert_eq!(global(&plan, "INJ_HAS_REINJECTED"), Some(0));
    }

    #[test]
    fn the_reason_of_an_exit_is_an_argument_or_read_from_the_vcpu() {
        let mut host = host();
        let new = plan(&host);
        assert_eq!(global(&new, "EXIT_HAS_REASON"), Some(0));
        assert_eq!(global(&new, "SVM_VMCB"), Some(22));
        assert_eq!(global(&new, "VMCB_EXIT_CODE"), Some(23));
        assert_eq!(global(&new, "VMX_EXIT_REASON"), None);
        host.prototypes.insert(
            tracepoint("kvm_exit"),
            Ok(EXIT_PROTOTYPE_WITH_REASON.to_owned()),
        );
        let old = plan(&host);
        assert_eq!(global(&old, "EXIT_HAS_REASON"), Some(1));
        assert_eq!(
            ways(&old, Hook::KvmExit),
            [Via::RawTracepoint, Via::Tracepoint]
        );
    }

    #[test]
    fn without_kvms_structures_the_record_of_an_exit_is_left() {
        let mut host = host();
        host.vcpu = Err("/sys/kernel/btf/kvm_amd: not found".to_owned());
        let plan = plan(&host);
        assert_eq!(ways(&plan, Hook::KvmExit), [Via::Tracepoint]);
        let refusal = &plan.hooks[Hook::KvmExit as usize].refusals[0];
        assert!(refusal.reason.contains("kvm_amd"), "{}", refusal.reason);
    }

    #[test]
    fn an_unknown_prototype_leaves_the_record() {
        let mut host = host();
        host.prototypes
            .insert(tracepoint("signal_generate"), Ok("int".to_owned()));
        let plan = plan(&host);
        assert_eq!(ways(&plan, Hook::SignalGenerate), [Via::Tracepoint]);
        let refusal = &plan.hooks[Hook::SignalGenerate as usize].refusals[0];
        assert_eq!(refusal.via, Via::RawTracepoint);
        assert!(refusal.reason.contains("(int)"), "{}", refusal.reason);
    }

    #[test]
    fn a_missing_or_resized_field_refuses_the_record() {
        for text in [
            "field:int sig;offset:8;size:4;\n",
            "field:int sig;offset:8;size:4;\nfield:long code;offset:16;size:8;\n",
        ] {
            let mut host = host();
            host.formats
                .insert(tracepoint("signal_generate"), Ok(Format::parse(text)));
            let plan = plan(&host);
            assert_eq!(ways(&plan, Hook::SignalGenerate), [Via::RawTracepoint]);
            assert_eq!(global(&plan, "SIGNAL_CODE"), None);
        }
    }

    #[test]
    fn a_choice_leaves_one_way_or_none() {
        let mut plan = plan(&host());
        plan.restrict(&[
            Choice {
                hook: Hook::SignalGenerate,
                via: Some(Via::Tracepoint),
            },
            Choice {
                hook: Hook::HandleBusLock,
                via: None,
            },
        ]);
        assert_eq!(ways(&plan, Hook::SignalGenerate), [Via::Tracepoint]);
        assert_eq!(ways(&plan, Hook::HandleBusLock), []);
        assert_eq!(
            ways(&plan, Hook::HandleUserSplitLock),
            [Via::Fentry, Via::Kprobe]
        );
        let refusals = &plan.hooks[Hook::HandleBusLock as usize].refusals;
        assert_eq!(refusals.len(), 2);
        assert_eq!(refusals[0].reason, "ruled out by --probe");
    }

    #[test]
    fn exits_are_counted_all_or_for_locks_alone_or_not_at_all() {
        let with = |which| {
            let mut plan = plan(&host());
            plan.count_exits(which);
            plan
        };
        let locks = with(KvmExits::Locks);
        assert_eq!(global(&locks, "EXIT_COUNTED"), Some(1));
        assert_eq!(global(&with(KvmExits::All), "EXIT_COUNTED"), Some(0));
        let off = with(KvmExits::Off);
        for hook in KvmExits::HOOKS {
            assert_eq!(ways(&locks, hook), [Via::RawTracepoint, Via::Tracepoint]);
            assert_eq!(ways(&off, hook), []);
            let refusals = &off.hooks[hook as usize].refusals;
            assert_eq!(refusals[1].reason, "ruled out by --kvm-exits=off");
        }
        assert_eq!(
            ways(&off, Hook::KvmInjException),
            [Via::RawTracepoint, Via::Tracepoint]
        );
    }

    #[test]
    fn without_tracefs_the_raw_tracepoints_stay() {
        let mut host = host();
        host.formats = TRACEPOINTS
            .iter()
            .map(|found| (*found, Err("tracefs is not mounted".to_owned())))
            .collect();
        let plan = plan(&host);
        assert_eq!(ways(&plan, Hook::SignalGenerate), [Via::RawTracepoint]);
        assert_eq!(ways(&plan, Hook::KvmExit), [Via::RawTracepoint]);
    }

    #[test]
    fn without_btf_only_the_kernel_log_is_left() {
        let mut host = host();
        host.layout = Err("no BTF".to_owned());
        host.prototypes = BTreeMap::new();
        let plan = plan(&host);
        for planned in &plan.hooks {
            let expected: &[Via] = match planned.hook {
                Hook::KernelLog => &[Via::Kmsg],
                _ => &[],
            };
            assert_eq!(ways(&plan, planned.hook), expected, "{:?}", planned.hook);
        }
    }
}
