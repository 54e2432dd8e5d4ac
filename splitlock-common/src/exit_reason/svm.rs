//! Exit codes of AMD's SVM.
//!
//! Source of numbers and names: `SVM_EXIT_*` and `SVM_VMGEXIT_*` in
//! [arch/x86/include/uapi/asm/svm.h](https://github.com/torvalds/linux/blob/v7.3/arch/x86/include/uapi/asm/svm.h),
//! Linux 7.3.4. Names are the macros' suffixes after `SVM_EXIT_`, or after `SVM_` for the
//! `VMGEXIT` group (`vmgexit_psc`), with two exceptions where a macro tells nothing:
//!
//! - Exceptions are `SVM_EXIT_EXCP_BASE` plus a vector. They are `excp_` and the mnemonic that
//!   the header's own strings have (`"AC excp"` is `excp_ac`, vector 19 `excp_xf`), and for the
//!   later vectors, which have no string, the one of `*_VECTOR` in arch/x86/include/uapi/asm/kvm.h.
//! - `SVM_EXIT_ERR` is `invalid_guest_state`, as the header's string says.
//!
//! The code is 64 bits wide in hardware, and in KVM from 7.0 on. The field of the `kvm_exit`
//! record stays `unsigned int` (`svm_get_exit_info` assigns to a `u32`), so that -1 is still
//! 0xffff_ffff there. The `VMGEXIT` codes reach the record only if KVM passes them through it;
//! 7.3 traces the exit as `vmgexit` and the guest's request in `kvm_vmgexit_enter`.

use super::{DIRECT, INVALID, PAGING, SLOT_OTHER, SOFTWARE, VMGEXIT, VMGEXIT_END};

/// `SVM_EXIT_BUS_LOCK`, 6.16 and later: the bus lock threshold was reached, which KVM sets so
/// that every lock reaches it. The exit comes before the instruction, not after it as on VMX
/// (`bus_lock_exit` and `complete_userspace_buslock`,
/// [arch/x86/kvm/svm/svm.c](https://github.com/torvalds/linux/blob/v7.3/arch/x86/kvm/svm/svm.c)).
pub(super) const BUS_LOCK: u32 = 0xa5;

const PAGING_BASE: u32 = 0x400;
const VMGEXIT_BASE: u32 = 0x8000_0000;
const VMGEXIT_END_BASE: u32 = 0x8000_fffd;
const SOFTWARE_CODE: u32 = 0xf000_0000;
const INVALID_CODE: u32 = u32::MAX;

/// Codes from [`PAGING_BASE`] that have slots.
pub(super) const PAGING_CODES: u32 = 8;
/// Codes from [`VMGEXIT_BASE`] that have slots.
pub(super) const VMGEXIT_CODES: u32 = 0x20;
/// Codes from [`VMGEXIT_END_BASE`] that have slots.
pub(super) const VMGEXIT_END_CODES: u32 = 3;

#[inline(always)]
pub(super) const fn slot(exit_code: u32) -> u32 {
    if exit_code < DIRECT {
        return exit_code;
    }
    let paging = exit_code.wrapping_sub(PAGING_BASE);
    if paging < PAGING_CODES {
        return PAGING + paging;
    }
    let vmgexit = exit_code.wrapping_sub(VMGEXIT_BASE);
    if vmgexit < VMGEXIT_CODES {
        return VMGEXIT + vmgexit;
    }
    let vmgexit_end = exit_code.wrapping_sub(VMGEXIT_END_BASE);
    if vmgexit_end < VMGEXIT_END_CODES {
        return VMGEXIT_END + vmgexit_end;
    }
    match exit_code {
        SOFTWARE_CODE => SOFTWARE,
        INVALID_CODE => INVALID,
        _ => SLOT_OTHER,
    }
}

pub(super) const fn name(slot: u32) -> Option<&'static str> {
    if slot < DIRECT {
        intercept(slot)
    } else if slot < VMGEXIT {
        paging(slot - PAGING)
    } else if slot < SOFTWARE {
        vmgexit(slot)
    } else {
        match slot {
            SOFTWARE => Some("sw"),
            INVALID => Some("invalid_guest_state"),
            _ => None,
        }
    }
}

const fn intercept(exit_code: u32) -> Option<&'static str> {
    Some(match exit_code {
        0x00 => "read_cr0",
        0x02 => "read_cr2",
        0x03 => "read_cr3",
        0x04 => "read_cr4",
        0x08 => "read_cr8",
        0x10 => "write_cr0",
        0x12 => "write_cr2",
        0x13 => "write_cr3",
        0x14 => "write_cr4",
        0x18 => "write_cr8",
        0x20 => "read_dr0",
        0x21 => "read_dr1",
        0x22 => "read_dr2",
        0x23 => "read_dr3",
        0x24 => "read_dr4",
        0x25 => "read_dr5",
        0x26 => "read_dr6",
        0x27 => "read_dr7",
        0x30 => "write_dr0",
        0x31 => "write_dr1",
        0x32 => "write_dr2",
        0x33 => "write_dr3",
        0x34 => "write_dr4",
        0x35 => "write_dr5",
        0x36 => "write_dr6",
        0x37 => "write_dr7",
        0x40 => "excp_de",
        0x41 => "excp_db",
        0x43 => "excp_bp",
        0x44 => "excp_of",
        0x45 => "excp_br",
        0x46 => "excp_ud",
        0x47 => "excp_nm",
        0x48 => "excp_df",
        0x4a => "excp_ts",
        0x4b => "excp_np",
        0x4c => "excp_ss",
        0x4d => "excp_gp",
        0x4e => "excp_pf",
        0x50 => "excp_mf",
        0x51 => "excp_ac",
        0x52 => "excp_mc",
        0x53 => "excp_xf",
        0x54 => "excp_ve",
        0x55 => "excp_cp",
        0x5c => "excp_hv",
        0x5d => "excp_vc",
        0x5e => "excp_sx",
        0x60 => "intr",
        0x61 => "nmi",
        0x62 => "smi",
        0x63 => "init",
        0x64 => "vintr",
        0x65 => "cr0_sel_write",
        0x66 => "idtr_read",
        0x67 => "gdtr_read",
        0x68 => "ldtr_read",
        0x69 => "tr_read",
        0x6a => "idtr_write",
        0x6b => "gdtr_write",
        0x6c => "ldtr_write",
        0x6d => "tr_write",
        0x6e => "rdtsc",
        0x6f => "rdpmc",
        0x70 => "pushf",
        0x71 => "popf",
        0x72 => "cpuid",
        0x73 => "rsm",
        0x74 => "iret",
        0x75 => "swint",
        0x76 => "invd",
        0x77 => "pause",
        0x78 => "hlt",
        0x79 => "invlpg",
        0x7a => "invlpga",
        0x7b => "ioio",
        0x7c => "msr",
        0x7d => "task_switch",
        0x7e => "ferr_freeze",
        0x7f => "shutdown",
        0x80 => "vmrun",
        0x81 => "vmmcall",
        0x82 => "vmload",
        0x83 => "vmsave",
        0x84 => "stgi",
        0x85 => "clgi",
        0x86 => "skinit",
        0x87 => "rdtscp",
        0x88 => "icebp",
        0x89 => "wbinvd",
        0x8a => "monitor",
        0x8b => "mwait",
        0x8c => "mwait_cond",
        0x8d => "xsetbv",
        0x8e => "rdpru",
        0x8f => "efer_write_trap",
        0x90 => "cr0_write_trap",
        0x91 => "cr1_write_trap",
        0x92 => "cr2_write_trap",
        0x93 => "cr3_write_trap",
        0x94 => "cr4_write_trap",
        0x95 => "cr5_write_trap",
        0x96 => "cr6_write_trap",
        0x97 => "cr7_write_trap",
        0x98 => "cr8_write_trap",
        0x99 => "cr9_write_trap",
        0x9a => "cr10_write_trap",
        0x9b => "cr11_write_trap",
        0x9c => "cr12_write_trap",
        0x9d => "cr13_write_trap",
        0x9e => "cr14_write_trap",
        0x9f => "cr15_write_trap",
        0xa2 => "invpcid",
        BUS_LOCK => "bus_lock",
        0xa6 => "idle_hlt",
        _ => return None,
    })
}

const fn paging(offset: u32) -> Option<&'static str> {
    Some(match offset {
        0 => "npf",
        1 => "avic_incomplete_ipi",
        2 => "avic_unaccelerated_access",
        3 => "vmgexit",
        _ => return None,
    })
}

const fn vmgexit(slot: u32) -> Option<&'static str> {
    const END: [&str; VMGEXIT_END_CODES as usize] = [
        "vmgexit_hv_features",
        "vmgexit_term_request",
        "vmgexit_unsupported_event",
    ];
    if slot >= VMGEXIT_END {
        return Some(END[(slot - VMGEXIT_END) as usize]);
    }
    Some(match slot - VMGEXIT {
        0x01 => "vmgexit_mmio_read",
        0x02 => "vmgexit_mmio_write",
        0x03 => "vmgexit_nmi_complete",
        0x04 => "vmgexit_ap_hlt_loop",
        0x05 => "vmgexit_ap_jump_table",
        0x10 => "vmgexit_psc",
        0x11 => "vmgexit_guest_request",
        0x12 => "vmgexit_ext_guest_request",
        0x13 => "vmgexit_ap_creation",
        0x18 => "vmgexit_snp_run_vmpl",
        0x1a => "vmgexit_savic",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{EXIT_SLOTS, Isa, OTHER, is_bus_lock, slot, slot_name};
    use std::collections::{BTreeMap, BTreeSet};

    const ISA: u32 = Isa::Svm.number();

    fn named(exit_code: u32) -> &'static str {
        slot_name(ISA, slot(ISA, exit_code))
    }

    /// `SVM_*` of Linux 7.3.4, taken from the header by machine, but for the bounds of the
    /// exceptions and the sub-functions and parameters of `VMGEXIT` codes.
    const HEADER: &str = "
        0=READ_CR0 2=READ_CR2 3=READ_CR3 4=READ_CR4 8=READ_CR8 10=WRITE_CR0 12=WRITE_CR2
        13=WRITE_CR3 14=WRITE_CR4 18=WRITE_CR8 20=READ_DR0 21=READ_DR1 22=READ_DR2
        23=READ_DR3 24=READ_DR4 25=READ_DR5 26=READ_DR6 27=READ_DR7 30=WRITE_DR0
        31=WRITE_DR1 32=WRITE_DR2 33=WRITE_DR3 34=WRITE_DR4 35=WRITE_DR5 36=WRITE_DR6
        37=WRITE_DR7 60=INTR 61=NMI 62=SMI 63=INIT 64=VINTR 65=CR0_SEL_WRITE 66=IDTR_READ
        67=GDTR_READ 68=LDTR_READ 69=TR_READ 6a=IDTR_WRITE 6b=GDTR_WRITE 6c=LDTR_WRITE
        6d=TR_WRITE 6e=RDTSC 6f=RDPMC 70=PUSHF 71=POPF 72=CPUID 73=RSM 74=IRET 75=SWINT
        76=INVD 77=PAUSE 78=HLT 79=INVLPG 7a=INVLPGA 7b=IOIO 7c=MSR 7d=TASK_SWITCH
        7e=FERR_FREEZE 7f=SHUTDOWN 80=VMRUN 81=VMMCALL 82=VMLOAD 83=VMSAVE 84=STGI 85=CLGI
        86=SKINIT 87=RDTSCP 88=ICEBP 89=WBINVD 8a=MONITOR 8b=MWAIT 8c=MWAIT_COND 8d=XSETBV
        8e=RDPRU 8f=EFER_WRITE_TRAP 90=CR0_WRITE_TRAP 91=CR1_WRITE_TRAP 92=CR2_WRITE_TRAP
        93=CR3_WRITE_TRAP 94=CR4_WRITE_TRAP 95=CR5_WRITE_TRAP 96=CR6_WRITE_TRAP
        97=CR7_WRITE_TRAP 98=CR8_WRITE_TRAP 99=CR9_WRITE_TRAP 9a=CR10_WRITE_TRAP
        9b=CR11_WRITE_TRAP 9c=CR12_WRITE_TRAP 9d=CR13_WRITE_TRAP 9e=CR14_WRITE_TRAP
        9f=CR15_WRITE_TRAP a2=INVPCID a5=BUS_LOCK a6=IDLE_HLT 400=NPF
        401=AVIC_INCOMPLETE_IPI 402=AVIC_UNACCELERATED_ACCESS 403=VMGEXIT
        80000001=VMGEXIT_MMIO_READ 80000002=VMGEXIT_MMIO_WRITE
        80000003=VMGEXIT_NMI_COMPLETE 80000004=VMGEXIT_AP_HLT_LOOP
        80000005=VMGEXIT_AP_JUMP_TABLE 80000010=VMGEXIT_PSC 80000011=VMGEXIT_GUEST_REQUEST
        80000012=VMGEXIT_EXT_GUEST_REQUEST 80000013=VMGEXIT_AP_CREATION
        80000018=VMGEXIT_SNP_RUN_VMPL 8000001a=VMGEXIT_SAVIC 8000fffd=VMGEXIT_HV_FEATURES
        8000fffe=VMGEXIT_TERM_REQUEST 8000ffff=VMGEXIT_UNSUPPORTED_EVENT f0000000=SW
        ffffffff=ERR";

    /// `*_VECTOR` of arch/x86/include/uapi/asm/kvm.h, Linux 7.3.4, taken by machine.
    const VECTORS: &str = "
        0=DE 1=DB 3=BP 4=OF 5=BR 6=UD 7=NM 8=DF a=TS b=NP c=SS d=GP e=PF 10=MF 11=AC 12=MC
        13=XM 14=VE 15=CP 1c=HV 1d=VC 1e=SX";

    /// The print format of `kvm:kvm_exit` of a running 6.18, taken from tracefs by machine,
    /// blanks made underscores.
    const FORMAT: &str = "
        0=read_cr0 2=read_cr2 3=read_cr3 4=read_cr4 8=read_cr8 10=write_cr0 12=write_cr2
        13=write_cr3 14=write_cr4 18=write_cr8 20=read_dr0 21=read_dr1 22=read_dr2
        23=read_dr3 24=read_dr4 25=read_dr5 26=read_dr6 27=read_dr7 30=write_dr0
        31=write_dr1 32=write_dr2 33=write_dr3 34=write_dr4 35=write_dr5 36=write_dr6
        37=write_dr7 40=DE_excp 41=DB_excp 43=BP_excp 44=OF_excp 45=BR_excp 46=UD_excp
        47=NM_excp 48=DF_excp 4a=TS_excp 4b=NP_excp 4c=SS_excp 4d=GP_excp 4e=PF_excp
        50=MF_excp 51=AC_excp 52=MC_excp 53=XF_excp 60=interrupt 61=nmi 62=smi 63=init
        64=vintr 65=cr0_sel_write 66=read_idtr 67=read_gdtr 68=read_ldtr 69=read_rt
        6a=write_idtr 6b=write_gdtr 6c=write_ldtr 6d=write_rt 6e=rdtsc 6f=rdpmc 70=pushf
        71=popf 72=cpuid 73=rsm 74=iret 75=swint 76=invd 77=pause 78=hlt 79=invlpg
        7a=invlpga 7b=io 7c=msr 7d=task_switch 7e=ferr_freeze 7f=shutdown 80=vmrun
        81=hypercall 82=vmload 83=vmsave 84=stgi 85=clgi 86=skinit 87=rdtscp 88=icebp
        89=wbinvd 8a=monitor 8b=mwait 8d=xsetbv 8f=write_efer_trap 90=write_cr0_trap
        94=write_cr4_trap 98=write_cr8_trap a2=invpcid a5=buslock a6=idle-halt 400=npf
        401=avic_incomplete_ipi 402=avic_unaccelerated_access 403=vmgexit
        80000001=vmgexit_mmio_read 80000002=vmgexit_mmio_write
        80000003=vmgexit_nmi_complete 80000004=vmgexit_ap_hlt_loop
        80000005=vmgexit_ap_jump_table 80000010=vmgexit_page_state_change
        80000011=vmgexit_guest_request 80000012=vmgexit_ext_guest_request
        80000013=vmgexit_ap_creation 8000fffd=vmgexit_hypervisor_feature
        ffffffff=invalid_guest_state";

    /// Where the print format has a name that is not the macro's.
    const RENAMED: &str = "
        buslock=bus_lock hypercall=vmmcall idle-halt=idle_hlt interrupt=intr io=ioio
        read_gdtr=gdtr_read read_idtr=idtr_read read_ldtr=ldtr_read read_rt=tr_read
        vmgexit_hypervisor_feature=vmgexit_hv_features vmgexit_page_state_change=vmgexit_psc
        write_cr0_trap=cr0_write_trap write_cr4_trap=cr4_write_trap write_cr8_trap=cr8_write_trap
        write_efer_trap=efer_write_trap write_gdtr=gdtr_write write_idtr=idtr_write
        write_ldtr=ldtr_write write_rt=tr_write";

    fn pairs(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
        table
            .split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
    }

    fn numbered(table: &'static str) -> impl Iterator<Item = (u32, &'static str)> {
        pairs(table).map(|(number, name)| (u32::from_str_radix(number, 16).unwrap(), name))
    }

    /// What the header tells, by the rules of the module's documentation.
    fn expected() -> BTreeMap<u32, String> {
        let exceptions = numbered(VECTORS).map(|(vector, mnemonic)| {
            let mnemonic = if mnemonic == "XM" { "XF" } else { mnemonic };
            (0x40 + vector, format!("excp_{}", mnemonic.to_lowercase()))
        });
        let codes = numbered(HEADER).map(|(code, suffix)| {
            let name = if suffix == "ERR" {
                "invalid_guest_state"
            } else {
                suffix
            };
            (code, name.to_lowercase())
        });
        exceptions.chain(codes).collect()
    }

    #[test]
    fn every_name_of_the_header_is_told() {
        assert_eq!(numbered(HEADER).count(), 113);
        assert_eq!(numbered(VECTORS).count(), 22);
        for (code, name) in expected() {
            assert_eq!(named(code), name, "{code:#x}");
        }
    }

    #[test]
    fn no_name_is_invented() {
        let named_slots = (0..EXIT_SLOTS as u32).filter(|slot| slot_name(ISA, *slot) != OTHER);
        let named_slots: BTreeSet<u32> = named_slots.collect();
        let header: BTreeSet<u32> = expected().keys().map(|code| slot(ISA, *code)).collect();
        assert_eq!(named_slots, header);
    }

    #[test]
    fn every_name_of_the_print_format_is_told() {
        assert_eq!(numbered(FORMAT).count(), 110);
        let renamed: BTreeMap<&str, &str> = pairs(RENAMED).collect();
        let mut used = 0;
        for (code, printed) in numbered(FORMAT) {
            let exception = printed.strip_suffix("_excp");
            let name = match (exception, renamed.get(printed)) {
                (Some(mnemonic), _) => format!("excp_{}", mnemonic.to_lowercase()),
                (None, Some(name)) => String::from(*name),
                (None, None) => String::from(printed),
            };
            used += usize::from(renamed.contains_key(printed));
            assert_eq!(named(code), name, "{code:#x}");
        }
        assert_eq!(used, renamed.len());
    }

    #[test]
    fn codes_without_a_name_are_other() {
        for code in [
            0x01,
            0x42,
            0x5f,
            0xa0,
            0xaf,
            0xb0,
            0x3ff,
            0x404,
            0x407,
            0x408,
            0x7fff_ffff,
            0x8000_0000,
            0x8000_001f,
            0x8000_0020,
            0x8000_fffc,
            0x8001_0000,
            0xefff_ffff,
            0xf000_0001,
            0xffff_fffe,
        ] {
            assert_eq!(named(code), OTHER, "{code:#x}");
        }
    }

    #[test]
    fn a_bus_lock_is_one_code() {
        assert!(is_bus_lock(ISA, 0xa5));
        // VMX's number and flag mean nothing here.
        for code in [74, 1 << 26, 1 << 26 | 0xa5, 0xa4, 0xa6, 0x51, u32::MAX] {
            assert!(!is_bus_lock(ISA, code), "{code:#x}");
        }
    }
}
