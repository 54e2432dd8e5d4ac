//! Does the kernel trap anything at all, and what does it do then?

use splitlock_common::{Armed, Mode};

use super::{Finding, Severity};
use crate::{
    detection::evidence::Source,
    doctor::{
        facts::{BootLoader, Facts, Kernel},
        verdict,
    },
    host::cpu::CpuFeatures,
};

/// From here on a trap costs its thread 10 ms, and detection comes back after two jiffies (b041b525dab9).
const PENALTY: (u32, u32) = (5, 19);

pub fn find(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![];
    found.extend(mode(facts));
    found.extend(origin_of_mode(facts));
    found.extend(not_armed(facts));
    found.extend(mitigation(facts));
    found
}

fn mode(facts: &Facts) -> Option<Finding> {
    let Kernel { parameter, .. } = &facts.kernel;
    // What a guest's VMM asks for does not depend on the mode.
    let worst = if facts.detection.sees_guest == Some(true) {
        Severity::Warning
    } else {
        Severity::Critical
    };
    let is_able = facts.cpu.features().is_none_or(CpuFeatures::any);
    Some(match facts.detection.mode {
        Mode::Warn | Mode::Fatal | Mode::Ratelimit if !is_able => Finding::new(
            "nothing_armed",
            worst,
            format!(
                "the kernel says {}, but the CPU shows neither split_lock_detect nor bus_lock_detect",
                facts.detection.mode.name()
            ),
            "nothing traps a split lock here, so no agent can count one",
        )
        .advice("look at /proc/cpuinfo: a hypervisor or a boot parameter may hide the flags"),
        Mode::Unsupported => {
            let found = Finding::new(
                "cpu_without_detection",
                worst,
                "the CPU shows neither split_lock_detect nor bus_lock_detect",
                "nothing traps a split lock here, so no agent can count one",
            );
            if facts.cpu.is_virtual {
                found.advice(
                    "this machine is itself a VM, which gets no detection from its host by itself: \
                     run doctor on that host",
                )
            } else {
                found.advice(
                    "needs a CPU that can trap them: Intel since Ice Lake and Tremont, AMD since \
                     Zen 5, and a kernel that knows it",
                )
            }
        }
        Mode::Off => {
            let because = match parameter.as_deref() {
                Some("off") => " by the boot parameter split_lock_detect=off",
                _ => "",
            };
            let found = Finding::new(
                "detection_off",
                worst,
                format!("detection is turned off{because}"),
                "the CPU could trap split locks, but none is trapped, so no agent can count one",
            );
            match without_parameter(&facts.kernel) {
                Some(command) => found.command(command),
                None => found.advice(
                    "boot without split_lock_detect=off; where it is not given, the CPU did not \
                     obey when the kernel turned detection on",
                ),
            }
        }
        Mode::Fatal => {
            let found = Finding::new(
                "fatal_mode",
                Severity::Note,
                "detection is in fatal mode",
                "a process that makes a split lock gets SIGBUS and dies without a handler, and so does \
                 the VMM of a guest that makes one",
            );
            match without_parameter(&facts.kernel) {
                Some(command) => found
                    .advice("without the parameter the mode is warn")
                    .command(command),
                None => found.advice("boot with split_lock_detect=warn to delay them instead"),
            }
        }
        Mode::Warn => warn(facts),
        Mode::Ratelimit => {
            let found = Finding::new(
                "ratelimit_mode",
                Severity::Note,
                "detection is in ratelimit mode",
                "bus locks of processes are slowed down and counted; split locks are not trapped (#AC \
                 is not armed), so of guests the host notices nothing by itself",
            );
            match without_parameter(&facts.kernel) {
                Some(command) => found
                    .advice("without the parameter the mode is warn")
                    .command(command),
                None => found,
            }
        }
        Mode::Unknown => Finding::new(
            "mode_unknown",
            Severity::Warning,
            "the mode of detection is not known: /proc/cpuinfo shows no flags",
            "nobody can say whether a lock would be trapped",
        )
        .advice("mount the host's /proc"),
    })
}

fn warn(facts: &Facts) -> Finding {
    if facts.detection.armed == Armed::BusLock {
        return Finding::new(
            "bus_locks_only",
            Severity::Note,
            "bus locks (#DB) are trapped here, not split locks (#AC)",
            "each lock of a process is noticed right after it was made",
        );
    }
    if facts.kernel.version >= Some(PENALTY) {
        Finding::new(
            "warn_mode_lower_bound",
            Severity::Note,
            "detection is in warn mode",
            "after a trap detection is off on that core for two jiffies, so counts are a lower bound",
        )
    } else {
        Finding::new(
            "first_per_thread",
            Severity::Warning,
            "detection is in warn mode, on a kernel before 5.19",
            "of each thread only about the first split lock is trapped, so that a thread which makes \
             thousands counts as one",
        )
        .advice("needs Linux 5.19 or later, which traps them again and again")
    }
}

/// The best sources are the kernel's memory and what it said at boot.
fn origin_of_mode(facts: &Facts) -> Option<Finding> {
    let from = match facts.detection.source {
        Source::Parameter => "the boot parameter",
        Source::Default => "the kernel's default",
        Source::Memory | Source::BootMessage | Source::CpuFlags | Source::None => return None,
    };
    let mut reasons = vec!["the kernel does not tell where it keeps it (CONFIG_KALLSYMS_ALL)"];
    if facts.kernel_log.ok {
        reasons.push("the line of the boot is no longer in the kernel log");
    } else {
        reasons.push("the kernel log is closed");
    }
    Some(Finding::new(
        "mode_inferred",
        Severity::Note,
        format!("the mode is inferred from {from}"),
        format!(
            "the kernel could have been refused by the CPU; this is not seen, as {}",
            reasons.join(", and ")
        ),
    ))
}

fn not_armed(facts: &Facts) -> Option<Finding> {
    verdict::is_arming_doubtful(facts).then(|| {
        Finding::new(
            "bus_locks_perhaps_not_armed",
            Severity::Warning,
            "the CPU has bus_lock_detect, but before Linux 6.13 only Intel's is turned on",
            "unless this kernel has the later change, bus locks are not trapped although the mode says \
             so",
        )
        .advice("needs Linux 6.13 or later")
    })
}

fn mitigation(facts: &Facts) -> Option<Finding> {
    let off = facts.detection.mitigation == Some(false);
    if !off || facts.detection.mode != Mode::Warn || facts.detection.armed != Armed::SplitLock {
        return None;
    }
    let command = "sysctl kernel.split_lock_mitigate=1";
    let rearms = facts
        .kernel
        .abilities
        .is_some_and(|abilities| abilities.rearms_each_core);
    Some(if rearms {
        Finding::new(
            "mitigation_off",
            Severity::Note,
            "kernel.split_lock_mitigate is 0",
            "offenders are not slowed down, and can hold up all cores as often as they like",
        )
        .command(command)
    } else {
        Finding::new(
            "mitigation_off",
            Severity::Warning,
            "kernel.split_lock_mitigate is 0, on a kernel in which all cores share one timer",
            "where two cores trap at once, one of them has detection off from then on, and nothing is \
             noticed there",
        )
        .command(command)
        .advice(
            "cores on which it is off already have it back after a reboot; from Linux 6.15 on each has a \
             timer of its own",
        )
    })
}

/// How to boot without the parameter. `None` where it is not known from where it comes.
fn without_parameter(kernel: &Kernel) -> Option<String> {
    let parameter = format!("split_lock_detect={}", kernel.parameter.as_deref()?);
    let loader = kernel.boot_loader?;
    if loader == BootLoader::Grubby {
        return Some(format!(
            "grubby --update-kernel=ALL --remove-args={parameter} && reboot"
        ));
    }
    let update = match loader {
        BootLoader::Grubby => return None,
        BootLoader::UpdateGrub => "update-grub",
        BootLoader::ProxmoxBootTool => "proxmox-boot-tool refresh",
        BootLoader::GrubMkconfig => "grub2-mkconfig -o /boot/grub2/grub.cfg",
    };
    if kernel.parameter_files.is_empty() {
        return None;
    }
    let files = kernel.parameter_files.join(" ");
    Some(format!(
        "sed -i 's/ *split_lock_detect=[a-z:0-9]*//g' {files} && {update} && reboot"
    ))
}
