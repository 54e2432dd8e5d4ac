//! Reasons for which `KVM_RUN` returns to the VMM: the `kvm_userspace_exit` record.
//!
//! Source of numbers and names: `KVM_EXIT_*` in
//! [include/uapi/linux/kvm.h](https://github.com/torvalds/linux/blob/v7.3/include/uapi/linux/kvm.h),
//! Linux 7.3.4. The tracepoint's print format knows 0 to 30 only.

use super::OTHER;

/// Reasons whose number is a slot by itself.
const DIRECT: u32 = 45;
const SLOT_OTHER: u32 = DIRECT;
const SLOT_RESTART: u32 = SLOT_OTHER + 1;
const SLOT_ERROR: u32 = SLOT_RESTART + 1;

/// How many slots [`userspace_slot`] can give.
pub const USERSPACE_SLOTS: usize = SLOT_ERROR as usize + 1;

/// `EINTR`, include/uapi/asm-generic/errno-base.h.
const EINTR: i32 = 4;

/// The counter of an exit to user space: always less than [`USERSPACE_SLOTS`].
///
/// Where `errno` is negative, `KVM_RUN` failed and `reason` may be left over from an earlier
/// exit, so it does not count: -EINTR is a signal or a kick, after which the VMM calls again, and
/// all else an error. The tracepoint's own print format reads it the same way
/// ([include/trace/events/kvm.h](https://github.com/torvalds/linux/blob/v7.3/include/trace/events/kvm.h)).
/// That makes `KVM_EXIT_INTR` a restart, and `KVM_EXIT_MEMORY_FAULT`, which comes with -EFAULT or
/// -EHWPOISON, an error.
#[inline(always)]
pub const fn userspace_slot(reason: u32, errno: i32) -> u32 {
    if errno == -EINTR {
        SLOT_RESTART
    } else if errno < 0 {
        SLOT_ERROR
    } else if reason < DIRECT {
        reason
    } else {
        SLOT_OTHER
    }
}

/// The label value of a slot; [`OTHER`] for a slot without a name.
pub const fn userspace_slot_name(slot: u32) -> &'static str {
    match slot {
        0 => "unknown",
        1 => "exception",
        2 => "io",
        3 => "hypercall",
        4 => "debug",
        5 => "hlt",
        6 => "mmio",
        7 => "irq_window_open",
        8 => "shutdown",
        9 => "fail_entry",
        10 => "intr",
        11 => "set_tpr",
        12 => "tpr_access",
        13 => "s390_sieic",
        14 => "s390_reset",
        15 => "dcr",
        16 => "nmi",
        17 => "internal_error",
        18 => "osi",
        19 => "papr_hcall",
        20 => "s390_ucontrol",
        21 => "watchdog",
        22 => "s390_tsch",
        23 => "epr",
        24 => "system_event",
        25 => "s390_stsi",
        26 => "ioapic_eoi",
        27 => "hyperv",
        28 => "arm_nisv",
        29 => "x86_rdmsr",
        30 => "x86_wrmsr",
        31 => "dirty_ring_full",
        32 => "ap_reset_hold",
        33 => "x86_bus_lock",
        34 => "xen",
        35 => "riscv_sbi",
        36 => "riscv_csr",
        37 => "notify",
        38 => "loongarch_iocsr",
        39 => "memory_fault",
        40 => "tdx",
        41 => "arm_sea",
        42 => "arm_ldst64b",
        43 => "snp_req_certs",
        SLOT_RESTART => "restart",
        SLOT_ERROR => "error",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// `KVM_EXIT_*` of Linux 7.3.4, taken from the header by machine.
    const HEADER: &str = "
        0=UNKNOWN 1=EXCEPTION 2=IO 3=HYPERCALL 4=DEBUG 5=HLT 6=MMIO 7=IRQ_WINDOW_OPEN
        8=SHUTDOWN 9=FAIL_ENTRY 10=INTR 11=SET_TPR 12=TPR_ACCESS 13=S390_SIEIC
        14=S390_RESET 15=DCR 16=NMI 17=INTERNAL_ERROR 18=OSI 19=PAPR_HCALL
        20=S390_UCONTROL 21=WATCHDOG 22=S390_TSCH 23=EPR 24=SYSTEM_EVENT 25=S390_STSI
        26=IOAPIC_EOI 27=HYPERV 28=ARM_NISV 29=X86_RDMSR 30=X86_WRMSR 31=DIRTY_RING_FULL
        32=AP_RESET_HOLD 33=X86_BUS_LOCK 34=XEN 35=RISCV_SBI 36=RISCV_CSR 37=NOTIFY
        38=LOONGARCH_IOCSR 39=MEMORY_FAULT 40=TDX 41=ARM_SEA 42=ARM_LDST64B
        43=SNP_REQ_CERTS";

    /// The print format of `kvm:kvm_userspace_exit` of a running 6.18, taken from tracefs by
    /// machine.
    const FORMAT: &str = "
        0=UNKNOWN 1=EXCEPTION 2=IO 3=HYPERCALL 4=DEBUG 5=HLT 6=MMIO 7=IRQ_WINDOW_OPEN
        8=SHUTDOWN 9=FAIL_ENTRY 10=INTR 11=SET_TPR 12=TPR_ACCESS 13=S390_SIEIC
        14=S390_RESET 15=DCR 16=NMI 17=INTERNAL_ERROR 18=OSI 19=PAPR_HCALL
        20=S390_UCONTROL 21=WATCHDOG 22=S390_TSCH 23=EPR 24=SYSTEM_EVENT 25=S390_STSI
        26=IOAPIC_EOI 27=HYPERV 28=ARM_NISV 29=X86_RDMSR 30=X86_WRMSR";

    fn pairs(table: &'static str) -> impl Iterator<Item = (u32, &'static str)> {
        table.split_whitespace().map(|pair| {
            let (number, name) = pair.split_once('=').unwrap();
            (number.parse().unwrap(), name)
        })
    }

    #[test]
    fn every_name_of_the_header_and_the_print_format_is_told() {
        assert_eq!(pairs(HEADER).count(), 44);
        assert_eq!(pairs(FORMAT).count(), 31);
        for (reason, name) in pairs(HEADER).chain(pairs(FORMAT)) {
            assert_eq!(
                userspace_slot_name(userspace_slot(reason, 0)),
                name.to_lowercase()
            );
        }
    }

    #[test]
    fn no_name_is_invented_and_none_repeated() {
        let names = (0..USERSPACE_SLOTS as u32).map(userspace_slot_name);
        let named: Vec<_> = names.filter(|name| *name != OTHER).collect();
        assert_eq!(named.len(), pairs(HEADER).count() + 2);
        assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len());
        assert_eq!(userspace_slot_name(u32::MAX), OTHER);
    }

    #[test]
    fn every_record_has_a_slot_in_bounds() {
        let reasons = (0..=u32::from(u16::MAX)).chain([1 << 31, u32::MAX]);
        for reason in reasons {
            for errno in [
                i32::MIN,
                -4096,
                -133,
                -14,
                -5,
                -4,
                -3,
                -1,
                0,
                1,
                4,
                i32::MAX,
            ] {
                assert!((userspace_slot(reason, errno) as usize) < USERSPACE_SLOTS);
            }
        }
    }

    #[test]
    fn a_failed_call_has_no_reason() {
        assert_eq!(userspace_slot_name(userspace_slot(33, -4)), "restart");
        assert_eq!(userspace_slot_name(userspace_slot(10, -4)), "restart");
        for errno in [-1, -3, -5, -14, -133, i32::MIN] {
            assert_eq!(userspace_slot_name(userspace_slot(39, errno)), "error");
        }
        for errno in [0, 1, 4, i32::MAX] {
            assert_eq!(
                userspace_slot_name(userspace_slot(33, errno)),
                "x86_bus_lock"
            );
        }
        assert_eq!(userspace_slot_name(userspace_slot(44, 0)), OTHER);
        assert_eq!(userspace_slot_name(userspace_slot(4711, 0)), OTHER);
    }
}
