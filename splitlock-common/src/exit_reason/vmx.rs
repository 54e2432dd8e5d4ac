//! Exit reasons of Intel's VMX.
//!
//! Source of numbers and names: `EXIT_REASON_*` in
//! [arch/x86/include/uapi/asm/vmx.h](https://github.com/torvalds/linux/blob/v7.3/arch/x86/include/uapi/asm/vmx.h),
//! Linux 7.3.4. TDX guests report through the same numbers, from 6.16 on.

use super::{DIRECT, SLOT_OTHER};

/// Bits 15:0, the basic reason; the flags are above (`union vmx_exit_reason`,
/// [arch/x86/kvm/vmx/common.h](https://github.com/torvalds/linux/blob/v7.3/arch/x86/kvm/vmx/common.h)).
const BASIC: u32 = 0xffff;
/// `EXIT_REASON_EXCEPTION_NMI`
const EXCEPTION_NMI: u32 = 0;
/// `EXIT_REASON_BUS_LOCK`
const BUS_LOCK: u32 = 74;
/// `bus_lock_detected`: the bus was locked, and another exit came first.
const BUS_LOCK_DETECTED: u32 = 1 << 26;
/// `failed_vmentry`: the guest did not run.
const FAILED_ENTRY: u32 = 1 << 31;

#[inline(always)]
pub(super) const fn slot(exit_reason: u32) -> u32 {
    let basic = exit_reason & BASIC;
    if basic < DIRECT { basic } else { SLOT_OTHER }
}

/// The basic reason or the flag, as hardware is free to set the flag on a bus-lock exit or not
/// (`vt_handle_bus_lock_vmexit` in 7.3, before it `handle_bus_lock_vmexit`,
/// [arch/x86/kvm/vmx/main.c](https://github.com/torvalds/linux/blob/v7.3/arch/x86/kvm/vmx/main.c)).
///
/// Never when the entry failed. Hardware then clears bits 30:16 (SDM volume 3, "VM-entry failures
/// during or after loading guest state"), so that `vmx_handle_exit` need not look at bit 31. But
/// KVM makes up the number -1, all bits set, where the TDX module did not run the vCPU, as after
/// `TDX_OPERAND_BUSY`, and traces it: `tdx_to_vmx_exit_reason` and `tdx_vcpu_run` in
/// [arch/x86/kvm/vmx/tdx.c](https://github.com/torvalds/linux/blob/v6.16/arch/x86/kvm/vmx/tdx.c)
/// of 6.16. (7.3 makes up a basic reason without flags instead.) By bit 26 alone each of those
/// would be a bus lock that nobody made.
#[inline(always)]
pub(super) const fn is_bus_lock(exit_reason: u32) -> bool {
    exit_reason & FAILED_ENTRY == 0
        && (exit_reason & BASIC == BUS_LOCK || exit_reason & BUS_LOCK_DETECTED != 0)
}

/// An exception exit whose interruption information is valid (bit 31), of the type hardware
/// exception (bits 10:8 are 3), vector 17: KVM's own test, `is_alignment_check` in
/// [arch/x86/kvm/vmx/vmcs.h](https://github.com/torvalds/linux/blob/v7.3/arch/x86/kvm/vmx/vmcs.h).
#[inline(always)]
pub(super) const fn is_guest_ac(exit_reason: u32, intr_info: u32) -> bool {
    exit_reason & (FAILED_ENTRY | BASIC) == EXCEPTION_NMI && intr_info & 0x8000_07ff == 0x8000_0311
}

pub(super) const fn name(slot: u32) -> Option<&'static str> {
    Some(match slot {
        0 => "exception_nmi",
        1 => "external_interrupt",
        2 => "triple_fault",
        3 => "init_signal",
        4 => "sipi_signal",
        6 => "other_smi",
        7 => "interrupt_window",
        8 => "nmi_window",
        9 => "task_switch",
        10 => "cpuid",
        12 => "hlt",
        13 => "invd",
        14 => "invlpg",
        15 => "rdpmc",
        16 => "rdtsc",
        18 => "vmcall",
        19 => "vmclear",
        20 => "vmlaunch",
        21 => "vmptrld",
        22 => "vmptrst",
        23 => "vmread",
        24 => "vmresume",
        25 => "vmwrite",
        26 => "vmoff",
        27 => "vmon",
        28 => "cr_access",
        29 => "dr_access",
        30 => "io_instruction",
        31 => "msr_read",
        32 => "msr_write",
        33 => "invalid_state",
        34 => "msr_load_fail",
        36 => "mwait_instruction",
        37 => "monitor_trap_flag",
        39 => "monitor_instruction",
        40 => "pause_instruction",
        41 => "mce_during_vmentry",
        43 => "tpr_below_threshold",
        44 => "apic_access",
        45 => "eoi_induced",
        46 => "gdtr_idtr",
        47 => "ldtr_tr",
        48 => "ept_violation",
        49 => "ept_misconfig",
        50 => "invept",
        51 => "rdtscp",
        52 => "preemption_timer",
        53 => "invvpid",
        54 => "wbinvd",
        55 => "xsetbv",
        56 => "apic_write",
        57 => "rdrand",
        58 => "invpcid",
        59 => "vmfunc",
        60 => "encls",
        61 => "rdseed",
        62 => "pml_full",
        63 => "xsaves",
        64 => "xrstors",
        67 => "umwait",
        68 => "tpause",
        BUS_LOCK => "bus_lock",
        75 => "notify",
        76 => "seamcall",
        77 => "tdcall",
        84 => "msr_read_imm",
        85 => "msr_write_imm",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, OTHER, is_bus_lock, is_guest_ac, slot, slot_name};
    use std::collections::BTreeSet;

    const ISA: u32 = Isa::Vmx.number();

    fn named(reason: u32) -> &'static str {
        slot_name(ISA, slot(ISA, reason))
    }

    /// `EXIT_REASON_*` of Linux 7.3.4, taken from the header by machine.
    const HEADER: &str = "
        0=EXCEPTION_NMI 1=EXTERNAL_INTERRUPT 2=TRIPLE_FAULT 3=INIT_SIGNAL 4=SIPI_SIGNAL
        6=OTHER_SMI 7=INTERRUPT_WINDOW 8=NMI_WINDOW 9=TASK_SWITCH 10=CPUID 12=HLT 13=INVD
        14=INVLPG 15=RDPMC 16=RDTSC 18=VMCALL 19=VMCLEAR 20=VMLAUNCH 21=VMPTRLD 22=VMPTRST
        23=VMREAD 24=VMRESUME 25=VMWRITE 26=VMOFF 27=VMON 28=CR_ACCESS 29=DR_ACCESS
        30=IO_INSTRUCTION 31=MSR_READ 32=MSR_WRITE 33=INVALID_STATE 34=MSR_LOAD_FAIL
        36=MWAIT_INSTRUCTION 37=MONITOR_TRAP_FLAG 39=MONITOR_INSTRUCTION
        40=PAUSE_INSTRUCTION 41=MCE_DURING_VMENTRY 43=TPR_BELOW_THRESHOLD 44=APIC_ACCESS
        45=EOI_INDUCED 46=GDTR_IDTR 47=LDTR_TR 48=EPT_VIOLATION 49=EPT_MISCONFIG 50=INVEPT
        51=RDTSCP 52=PREEMPTION_TIMER 53=INVVPID 54=WBINVD 55=XSETBV 56=APIC_WRITE
        57=RDRAND 58=INVPCID 59=VMFUNC 60=ENCLS 61=RDSEED 62=PML_FULL 63=XSAVES 64=XRSTORS
        67=UMWAIT 68=TPAUSE 74=BUS_LOCK 75=NOTIFY 76=SEAMCALL 77=TDCALL 84=MSR_READ_IMM
        85=MSR_WRITE_IMM";

    /// The print format of `kvm:kvm_exit` of a running 6.18, taken from tracefs by machine.
    const FORMAT: &str = "
        0=EXCEPTION_NMI 1=EXTERNAL_INTERRUPT 2=TRIPLE_FAULT 3=INIT_SIGNAL 4=SIPI_SIGNAL
        7=INTERRUPT_WINDOW 8=NMI_WINDOW 9=TASK_SWITCH 10=CPUID 12=HLT 13=INVD 14=INVLPG
        15=RDPMC 16=RDTSC 18=VMCALL 19=VMCLEAR 20=VMLAUNCH 21=VMPTRLD 22=VMPTRST 23=VMREAD
        24=VMRESUME 25=VMWRITE 26=VMOFF 27=VMON 28=CR_ACCESS 29=DR_ACCESS
        30=IO_INSTRUCTION 31=MSR_READ 32=MSR_WRITE 33=INVALID_STATE 34=MSR_LOAD_FAIL
        36=MWAIT_INSTRUCTION 37=MONITOR_TRAP_FLAG 39=MONITOR_INSTRUCTION
        40=PAUSE_INSTRUCTION 41=MCE_DURING_VMENTRY 43=TPR_BELOW_THRESHOLD 44=APIC_ACCESS
        45=EOI_INDUCED 46=GDTR_IDTR 47=LDTR_TR 48=EPT_VIOLATION 49=EPT_MISCONFIG 50=INVEPT
        51=RDTSCP 52=PREEMPTION_TIMER 53=INVVPID 54=WBINVD 55=XSETBV 56=APIC_WRITE
        57=RDRAND 58=INVPCID 59=VMFUNC 60=ENCLS 61=RDSEED 62=PML_FULL 63=XSAVES 64=XRSTORS
        67=UMWAIT 68=TPAUSE 74=BUS_LOCK 75=NOTIFY 77=TDCALL 84=MSR_READ_IMM
        85=MSR_WRITE_IMM";

    fn pairs(table: &'static str) -> impl Iterator<Item = (u32, &'static str)> {
        table.split_whitespace().map(|pair| {
            let (number, name) = pair.split_once('=').unwrap();
            (number.parse().unwrap(), name)
        })
    }

    #[test]
    fn every_name_of_the_header_is_told() {
        assert_eq!(pairs(HEADER).count(), 67);
        for (number, name) in pairs(HEADER) {
            assert_eq!(named(number), name.to_lowercase());
        }
    }

    #[test]
    fn no_name_is_invented() {
        let header: BTreeSet<u32> = pairs(HEADER).map(|(number, _)| number).collect();
        for number in 0..=u32::from(u16::MAX) {
            assert_eq!(named(number) != OTHER, header.contains(&number), "{number}");
        }
    }

    #[test]
    fn every_name_of_the_print_format_is_told() {
        assert_eq!(pairs(FORMAT).count(), 65);
        for (number, name) in pairs(FORMAT) {
            assert_eq!(named(number), name.to_lowercase());
        }
    }

    #[test]
    fn flags_do_not_change_the_name() {
        assert_eq!(named(1 << 26 | 1), "external_interrupt");
        assert_eq!(named(1 << 27), "exception_nmi");
        assert_eq!(named(1 << 31 | 33), "invalid_state");
        assert_eq!(named(u32::MAX), OTHER);
        // What KVM made up before 7.3 when VMLAUNCH itself failed; never traced.
        assert_eq!(named(0xdead), OTHER);
    }

    #[test]
    fn a_bus_lock_is_the_reason_or_the_flag() {
        assert!(is_bus_lock(ISA, 74));
        assert!(is_bus_lock(ISA, 1 << 26 | 74));
        assert!(is_bus_lock(ISA, 1 << 26));
        assert!(is_bus_lock(ISA, 1 << 26 | 48));
        assert!(is_bus_lock(ISA, 1 << 27 | 1 << 26 | 1)); // in an enclave
        for reason in [0, 1, 48, 75, 0xa5, 1 << 25 | 1, 1 << 27, 1 << 16 | 73] {
            assert!(!is_bus_lock(ISA, reason), "{reason:#x}");
        }
    }

    #[test]
    fn a_failed_entry_is_no_bus_lock() {
        for reason in [1 << 31 | 33, 1 << 31 | 1 << 26 | 33, 1 << 31 | 74, u32::MAX] {
            assert!(!is_bus_lock(ISA, reason), "{reason:#x}");
        }
    }

    #[test]
    fn a_guest_ac_is_a_valid_hardware_exception_17() {
        assert!(is_guest_ac(ISA, 0, 0x8000_0311));
        assert!(is_guest_ac(ISA, 0, 0x8000_0b11)); // with its error code
        assert!(is_guest_ac(ISA, 0, 0x8000_1b11)); // NMI unblocked by IRET
        assert!(is_guest_ac(ISA, 1 << 26, 0x8000_0b11));
        for (reason, intr_info) in [
            (0, 0),
            (0, 0x0000_0b11),       // not valid
            (0, 0x8000_0b0e),       // #PF
            (0, 0x8000_0202),       // NMI
            (0, 0x8000_0611),       // INT 17
            (1, 0x8000_0b11),       // not an exception
            (1 << 31, 0x8000_0b11), // entry failed
            (u32::MAX, 0x8000_0b11),
        ] {
            assert!(
                !is_guest_ac(ISA, reason, intr_info),
                "{reason:#x} {intr_info:#x}"
            );
        }
        assert!(!is_guest_ac(Isa::Svm.number(), 0, 0x8000_0b11));
    }
}
