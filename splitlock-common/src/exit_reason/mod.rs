//! VM exit reasons: from the raw number of a trace record to a counter slot, on the kernel side,
//! and from a slot to the label value, on the user side.
//!
//! A vCPU thread has one row of counters. The kernel side must find the counter in a few
//! instructions, without loop or table: [`slot`] for `kvm_exit`, [`userspace_slot`] for
//! `kvm_userspace_exit`. Names exist on the user side alone.
//!
//! # Names
//!
//! A label value is the kernel's own name: the suffix of the uapi macro, in lower snake case.
//! Print formats of the tracepoints are no source of names: they lack some numbers, and KVM's
//! format for SVM has names of its own (`io` for `SVM_EXIT_IOIO`). Two kinds are not macros, as
//! those would tell nothing: SVM's exceptions are `excp_ac` and so on, and its -1 is
//! `invalid_guest_state`.
//!
//! # Slots without a name
//!
//! A slot that the tables do not name is `other`, as is the slot of the numbers that have none.
//! So several slots share the name `other`, and a reader must add them up before it makes series
//! of them: two series with the same labels would be invalid. [`exits_by_name`] and
//! [`userspace_exits_by_name`] do. Every other name belongs to one slot.
//!
//! Sources, read in Linux 7.3.4 and compared with the print formats of a running 6.18:
//! `KVM_ISA_*` in
//! [arch/x86/kvm/trace.h](https://github.com/torvalds/linux/blob/v7.3/arch/x86/kvm/trace.h),
//! the rest in the submodules.

mod svm;
mod userspace;
mod vmx;

pub use userspace::{USERSPACE_SLOTS, userspace_slot, userspace_slot_name};

/// The name of every exit that has none of its own.
pub const OTHER: &str = "other";

/// Exits whose number is a slot by itself, on both instruction sets. VMX ends at 85 as of 7.3,
/// SVM's plain intercepts at 0xa6; both grow slowly.
const DIRECT: u32 = 0xb0;
/// SVM 0x400 to 0x407: nested paging, AVIC, VMGEXIT.
const PAGING: u32 = DIRECT;
/// SVM 0x8000_0000 to 0x8000_001f: what an SEV-ES guest asks for by VMGEXIT.
const VMGEXIT: u32 = PAGING + svm::PAGING_CODES;
/// SVM 0x8000_fffd to 0x8000_ffff: the end of that range.
const VMGEXIT_END: u32 = VMGEXIT + svm::VMGEXIT_CODES;
/// SVM 0xf000_0000: reserved for software.
const SOFTWARE: u32 = VMGEXIT_END + svm::VMGEXIT_END_CODES;
/// SVM -1: the VMCB was invalid.
const INVALID: u32 = SOFTWARE + 1;
/// All other numbers.
const SLOT_OTHER: u32 = INVALID + 1;

/// How many slots [`slot`] can give.
pub const EXIT_SLOTS: usize = SLOT_OTHER as usize + 1;

/// The instruction set of an exit: field `isa` of the `kvm_exit` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Isa {
    /// Intel: `KVM_ISA_VMX`.
    Vmx = 1,
    /// AMD: `KVM_ISA_SVM`.
    Svm = 2,
}

impl Isa {
    /// The instruction set with this number; `None` for a row that has seen no exit yet.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Vmx),
            2 => Some(Self::Svm),
            _ => None,
        }
    }

    /// The number in the record.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// The counter of an exit: always less than [`EXIT_SLOTS`], whatever the numbers are.
///
/// `isa` and `exit_reason` are the fields of the `kvm_exit` record. Every number that the kernel
/// headers name has a slot of its own.
#[inline(always)]
pub const fn slot(isa: u32, exit_reason: u32) -> u32 {
    if isa == Isa::Vmx.number() {
        vmx::slot(exit_reason)
    } else if isa == Isa::Svm.number() {
        svm::slot(exit_reason)
    } else {
        SLOT_OTHER
    }
}

/// Whether the exit tells of a bus lock in the guest.
///
/// It is not only the exits whose reason is the bus lock: on Intel another exit can coincide with
/// it and then carries a flag.
#[inline(always)]
pub const fn is_bus_lock(isa: u32, exit_reason: u32) -> bool {
    if isa == Isa::Vmx.number() {
        vmx::is_bus_lock(exit_reason)
    } else {
        isa == Isa::Svm.number() && exit_reason == svm::BUS_LOCK
    }
}

/// Whether the exit is an `#AC` in the guest.
///
/// That is not yet a split lock: KVM handles the exit by putting the `#AC` into the guest or by
/// calling `handle_guest_split_lock`, and only what it does next tells which
/// ([`handle_exception_nmi`](https://github.com/torvalds/linux/blob/v7.3/arch/x86/kvm/vmx/vmx.c)).
/// Never true on AMD, where an intercepted `#AC` always goes back into the guest.
///
/// `intr_info` is the field of the `kvm_exit` record, 5.10 and later.
#[inline(always)]
pub const fn is_guest_ac(isa: u32, exit_reason: u32, intr_info: u32) -> bool {
    isa == Isa::Vmx.number() && vmx::is_guest_ac(exit_reason, intr_info)
}

/// The label value of a slot; [`OTHER`] for a slot without a name and for an unknown `isa`.
pub const fn slot_name(isa: u32, slot: u32) -> &'static str {
    let name = match Isa::from_number(isa) {
        Some(Isa::Vmx) => vmx::name(slot),
        Some(Isa::Svm) => svm::name(slot),
        None => None,
    };
    match name {
        Some(name) => name,
        None => OTHER,
    }
}

/// Every name once, with its count, zeros included; all slots without a name are one, [`OTHER`],
/// which comes last.
pub fn exits_by_name(
    isa: u32,
    counts: &[u64; EXIT_SLOTS],
) -> impl Iterator<Item = (&'static str, u64)> {
    by_name(counts, move |slot| slot_name(isa, slot))
}

/// The same of the exits to user space.
pub fn userspace_exits_by_name(
    counts: &[u64; USERSPACE_SLOTS],
) -> impl Iterator<Item = (&'static str, u64)> {
    by_name(counts, userspace_slot_name)
}

fn by_name(
    counts: &[u64],
    name: impl Fn(u32) -> &'static str + Copy,
) -> impl Iterator<Item = (&'static str, u64)> {
    let slots = move || {
        (0..)
            .zip(counts)
            .map(move |(slot, count)| (name(slot), *count))
    };
    let is_other = |item: &(&str, u64)| item.0 == OTHER;
    let other = slots().filter(is_other).map(|(_, count)| count).sum();
    slots()
        .filter(move |item| !is_other(item))
        .chain(core::iter::once((OTHER, other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const VMX: u32 = Isa::Vmx.number();
    const SVM: u32 = Isa::Svm.number();

    /// Numbers around everything that [`slot`] compares with, and all of the low half.
    fn interesting() -> impl Iterator<Item = u32> {
        let highs = [
            0,
            0x0800_0000,
            0x0400_0000,
            0x8000_0000,
            0xf000_0000,
            0xffff_0000,
        ];
        let halves = highs
            .into_iter()
            .flat_map(|high| (0..=u32::from(u16::MAX)).map(move |low| high | low));
        let bits = (0..32).flat_map(|bit| (0..256).map(move |low| (1 << bit) | low));
        halves.chain(bits)
    }

    #[test]
    fn every_number_has_a_slot_in_bounds() {
        for reason in interesting() {
            for isa in [0, VMX, SVM, 3, u32::MAX] {
                assert!(
                    (slot(isa, reason) as usize) < EXIT_SLOTS,
                    "{isa} {reason:#x}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_instruction_set_is_other() {
        for isa in [0, 3, u32::MAX] {
            for reason in [0, 10, 74, 0xa5, 0x400, u32::MAX] {
                assert_eq!(slot_name(isa, slot(isa, reason)), OTHER);
                assert!(!is_bus_lock(isa, reason));
            }
            assert!(!is_guest_ac(isa, 0, 0x8000_0b11));
            assert_eq!(Isa::from_number(isa), None);
        }
        assert_eq!(Isa::from_number(VMX), Some(Isa::Vmx));
        assert_eq!(Isa::from_number(SVM), Some(Isa::Svm));
    }

    #[test]
    fn a_named_slot_is_reached_by_one_number_only() {
        for isa in [VMX, SVM] {
            let mut reasons: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
            for reason in interesting() {
                // VMX: the upper half holds flags.
                let number = if isa == VMX { reason & 0xffff } else { reason };
                reasons.entry(slot(isa, reason)).or_default().insert(number);
            }
            for (slot, numbers) in reasons {
                if slot != SLOT_OTHER {
                    assert_eq!(numbers.len(), 1, "isa {isa}, slot {slot}: {numbers:x?}");
                }
            }
        }
    }

    #[test]
    fn no_two_slots_have_one_name_but_other() {
        for isa in [VMX, SVM] {
            let mut seen = BTreeSet::new();
            for slot in 0..EXIT_SLOTS as u32 {
                let name = slot_name(isa, slot);
                assert!(
                    name == OTHER || seen.insert(name),
                    "isa {isa}: {name} twice"
                );
                assert!(
                    name.bytes()
                        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                    "{name}"
                );
            }
        }
        assert_eq!(slot_name(VMX, SLOT_OTHER), OTHER);
        assert_eq!(slot_name(SVM, SLOT_OTHER), OTHER);
        assert_eq!(slot_name(SVM, u32::MAX), OTHER);
    }

    #[test]
    fn by_name_loses_nothing_and_repeats_nothing() {
        let mut counts = [0; EXIT_SLOTS];
        for (slot, count) in counts.iter_mut().enumerate() {
            *count = 1 << (slot % 50);
        }
        let total: u64 = counts.iter().sum();
        for isa in [0, VMX, SVM] {
            let named: Vec<_> = exits_by_name(isa, &counts).collect();
            let names: BTreeSet<_> = named.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), named.len());
            assert_eq!(named.iter().map(|(_, count)| count).sum::<u64>(), total);
            assert_eq!(named.last().map(|(name, _)| *name), Some(OTHER));
        }
        counts = [0; EXIT_SLOTS];
        counts[slot(VMX, 5) as usize] = 3; // no name
        counts[slot(VMX, 0xffff) as usize] = 4; // no slot of its own
        counts[slot(VMX, 10) as usize] = 5;
        let nonzero = |item: &(&str, u64)| item.1 > 0;
        let named: Vec<_> = exits_by_name(VMX, &counts).filter(nonzero).collect();
        assert_eq!(named, [("cpuid", 5), (OTHER, 7)]);

        let mut counts = [0; USERSPACE_SLOTS];
        counts[userspace_slot(8, 0) as usize] = 1;
        counts[userspace_slot(0, -4) as usize] = 2;
        counts[userspace_slot(44, 0) as usize] = 3;
        counts[userspace_slot(4711, 0) as usize] = 4;
        let named: Vec<_> = userspace_exits_by_name(&counts).filter(nonzero).collect();
        assert_eq!(named, [("shutdown", 1), ("restart", 2), (OTHER, 7)]);
    }
}
