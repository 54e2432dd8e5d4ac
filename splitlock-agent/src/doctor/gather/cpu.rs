//! The CPU, as the kernel describes it.

use std::fs;

use super::super::facts::Cpu;
use crate::{host::cpu::CpuFeatures, subjects::names::printable};

pub fn read(features: Option<CpuFeatures>) -> Cpu {
    parse(
        &fs::read_to_string("/proc/cpuinfo").unwrap_or_default(),
        features,
    )
}

/// All CPUs of a host are alike in this.
fn parse(cpuinfo: &str, features: Option<CpuFeatures>) -> Cpu {
    let line = |key: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| found.trim() == key)
            .map(|(_, value)| value.trim())
            .unwrap_or_default()
    };
    let has = |flag: &str| line("flags").split_whitespace().any(|found| found == flag);
    Cpu {
        // A VM's is what its owner chose.
        model: printable(line("model name").as_bytes()),
        vendor: printable(line("vendor_id").as_bytes()),
        split_lock_detect: features.map(|features| features.split_lock_detect),
        bus_lock_detect: features.map(|features| features.bus_lock_detect),
        is_virtual: has("hypervisor"),
        kvm_module: if has("vmx") {
            Some("kvm_intel")
        } else if has("svm") {
            Some("kvm_amd")
        } else {
            None
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_told_by_its_lines() {
        let cpu = parse(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD \u{1b}[31mEPYC\n\
             flags\t\t: fpu svm hypervisor\n\nprocessor\t: 1\nmodel name\t: other\n",
            Some(CpuFeatures::default()),
        );
        assert_eq!(cpu.vendor, "AuthenticAMD");
        assert_eq!(cpu.model, r"AMD \x1b[31mEPYC");
        assert_eq!(cpu.kvm_module, Some("kvm_amd"));
        assert!(cpu.is_virtual);
        assert_eq!(cpu.split_lock_detect, Some(false));
        let unknown = parse("", None);
        assert_eq!((unknown.model.as_str(), unknown.kvm_module), ("", None));
        assert!(!unknown.is_virtual && unknown.features().is_none());
    }
}
