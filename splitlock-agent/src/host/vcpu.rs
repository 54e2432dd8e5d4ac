//! Where KVM keeps what a VM exit was: offsets inside its vCPU structures, from the BTF of
//! `kvm_intel` or `kvm_amd`, or of vmlinux where they are built in.

use std::fs;

use super::btf::{Btf, BtfError};

/// Offsets in bytes inside KVM's structures for a vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuLayout {
    /// `kvm_vcpu.vcpu_id`.
    pub vcpu_id: u32,
    /// Where the guest's RIP is; `None` where this kernel does not keep it with the other
    /// registers.
    pub rip: Option<GuestRip>,
    /// `vcpu_vmx.vt.exit_reason`, before 6.15 `vcpu_vmx.exit_reason`; `None` without Intel's KVM.
    pub vmx_exit_reason: Option<u32>,
    /// Where SVM's reason is; `None` without AMD's KVM.
    pub svm: Option<SvmExitCode>,
}

/// The guest's RIP in `struct kvm_vcpu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRip {
    /// `arch.regs[VCPU_REGS_RIP]`.
    pub offset: u32,
    /// `arch.regs_avail`, of which the first 32 bits are read.
    pub available: u32,
    /// The bit of RIP in it.
    pub available_mask: u32,
}

/// SVM's exit code, which the vCPU points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SvmExitCode {
    /// `vcpu_svm.vmcb`.
    pub vmcb: u32,
    /// `vmcb.control.exit_code`.
    pub exit_code: u32,
}

impl VcpuLayout {
    /// Asks vmlinux's BTF and that of the two modules. Only one of them is loaded, as a rule.
    ///
    /// # Errors
    /// Neither Intel's nor AMD's KVM is described, with what was found instead.
    pub fn read(vmlinux: &Btf<'_>) -> Result<Self, String> {
        let mut reasons = match Self::of(vmlinux) {
            Ok(layout) => return Ok(layout),
            Err(BtfError::NoType(_)) => vec![],
            Err(error) => vec![format!("vmlinux: {error}")],
        };
        for module in ["kvm_intel", "kvm_amd"] {
            let path = format!("/sys/kernel/btf/{module}");
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    reasons.push(format!("{path}: {error}"));
                    continue;
                }
            };
            match Btf::parse(&bytes, Some(vmlinux)).and_then(|btf| Self::of(&btf)) {
                Ok(layout) => return Ok(layout),
                Err(error) => reasons.push(format!("{path}: {error}")),
            }
        }
        Err(reasons.join("; "))
    }

    pub(super) fn of(btf: &Btf<'_>) -> Result<Self, BtfError> {
        let (vmx_exit_reason, svm) = match (vmx(btf), svm(btf)) {
            (Err(error), Err(_)) => return Err(error),
            (vmx, svm) => (vmx.ok(), svm.ok()),
        };
        Ok(Self {
            vcpu_id: btf.member_offset("kvm_vcpu", "vcpu_id")?,
            rip: rip(btf).ok(),
            vmx_exit_reason,
            svm,
        })
    }
}

/// The programs take the address of the vCPU for that of the structure around it.
fn check_first(btf: &Btf<'_>, outer: &str) -> Result<(), BtfError> {
    match btf.member_offset(outer, "vcpu")? {
        0 => Ok(()),
        _ => Err(BtfError::NoMember(
            outer.to_owned(),
            "vcpu, as the first one,".to_owned(),
        )),
    }
}

fn vmx(btf: &Btf<'_>) -> Result<u32, BtfError> {
    check_first(btf, "vcpu_vmx")?;
    btf.member_offset("vcpu_vmx", "vt.exit_reason")
        .or_else(|_| btf.member_offset("vcpu_vmx", "exit_reason"))
}

fn svm(btf: &Btf<'_>) -> Result<SvmExitCode, BtfError> {
    check_first(btf, "vcpu_svm")?;
    Ok(SvmExitCode {
        vmcb: btf.member_offset("vcpu_svm", "vmcb")?,
        exit_code: btf.member_offset("vmcb", "control.exit_code")?,
    })
}

fn rip(btf: &Btf<'_>) -> Result<GuestRip, BtfError> {
    let name = "VCPU_REGS_RIP";
    let missing = || BtfError::NoMember("kvm_reg".to_owned(), name.to_owned());
    let index = btf.enumerator("kvm_reg", name)?.ok_or_else(missing)?;
    let registers = btf.member_offset("kvm_vcpu", "arch.regs")?;
    Ok(GuestRip {
        offset: index
            .checked_mul(8)
            .and_then(|into| registers.checked_add(into))
            .ok_or_else(missing)?,
        available: btf.member_offset("kvm_vcpu", "arch.regs_avail")?,
        available_mask: 1_u32.checked_shl(index).ok_or_else(missing)?,
    })
}
