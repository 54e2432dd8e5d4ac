//! Verdicts and findings over a table of hosts.

mod fixtures;
mod hosts;
mod show;

use super::{
    Report,
    facts::{BootLoader, Facts},
    findings::{Finding, Severity},
    verdict::Answer::{Degraded, No, Partly, Unknown, Yes},
};
use fixtures::{intel, on_kernel, weighed, zen5};
use hosts::hosts;

#[test]
fn each_host_gets_its_verdict_and_its_findings() {
    for (name, facts, answer, expected) in hosts() {
        let report = Report::of(facts);
        let found: Vec<String> = report
            .findings
            .iter()
            .map(|Finding { id, severity, .. }| match severity {
                Severity::Critical => format!("!{id}"),
                Severity::Warning => (*id).to_owned(),
                Severity::Note => format!("({id})"),
            })
            .collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(report.verdict.answer, answer, "{name}");
        let status = match answer {
            Yes => 0,
            Degraded | Partly | Unknown => 1,
            No => 2,
        };
        assert_eq!(report.verdict.exit_status, status, "{name}");
    }
}

fn command(facts: Facts, id: &str) -> Option<String> {
    let report = Report::of(facts);
    let finding = report.findings.into_iter().find(|found| found.id == id);
    finding.unwrap_or_else(|| panic!("no {id}")).command
}

#[test]
fn commands_are_those_of_the_host() {
    let off = |loader, files: &[&str]| {
        let mut facts = weighed(intel(), Some("off"));
        facts.kernel.boot_loader = loader;
        facts.kernel.parameter_files = files.iter().map(|file| (*file).to_owned()).collect();
        command(facts, "detection_off")
    };
    let grub = "/etc/default/grub";
    assert_eq!(
        off(Some(BootLoader::UpdateGrub), &[grub]).as_deref(),
        Some(
            "sed -i 's/ *split_lock_detect=[a-z:0-9]*//g' /etc/default/grub && update-grub && reboot"
        )
    );
    assert_eq!(
        off(Some(BootLoader::Grubby), &[]).as_deref(),
        Some("grubby --update-kernel=ALL --remove-args=split_lock_detect=off && reboot")
    );
    // Nobody knows where it is from.
    assert_eq!(off(Some(BootLoader::UpdateGrub), &[]), None);
    assert_eq!(off(None, &[grub]), None);

    let mut amd = zen5();
    amd.kvm.modules.clear();
    assert_eq!(
        command(amd, "kvm_not_loaded").as_deref(),
        Some("modprobe kvm_amd && systemctl restart splitlock-agent")
    );
    let mut unmitigated = on_kernel(intel(), 6, 1);
    unmitigated.detection.mitigation = Some(false);
    assert_eq!(
        command(unmitigated, "mitigation_off").as_deref(),
        Some("sysctl kernel.split_lock_mitigate=1")
    );
}

#[test]
fn every_finding_says_what_to_do() {
    // As good as it gets, and said to be.
    let as_it_is = [
        "warn_mode_lower_bound",
        "bus_locks_only",
        "ratelimit_mode",
        "kvm_exit_never_fires",
        "pid_namespace",
        "agent_keeps_some_rights",
    ];
    for (name, facts, ..) in hosts() {
        for found in Report::of(facts).findings {
            let mends = found.command.is_some() || found.advice.is_some();
            assert!(mends || as_it_is.contains(&found.id), "{name}: {found:?}");
            assert!(!found.costs.is_empty() && !found.what.is_empty());
        }
    }
}
