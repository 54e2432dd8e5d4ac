//! Which vCPU a thread runs, by its name.

/// Prefix and suffix of the names of vCPU threads: QEMU with `debug-threads=on` and StratoVirt
/// (`CPU 0/KVM`; accel/kvm/kvm-accel-ops.c), Firecracker and libkrun (`fc_vcpu 0`;
/// src/vmm/src/vstate/vcpu.rs), Cloud Hypervisor (`vcpu0`; vmm/src/cpu.rs), crosvm
/// (`crosvm_vcpu0`; src/crosvm/sys/linux/vcpu.rs), kvmtool (`kvm-vcpu-0`; builtin-run.c), the
/// rust-vmm reference VMM and others (`vcpu-0`, `vcpu_0`, `vcpu 0`).
const FORMS: [(&[u8], &[u8]); 8] = [
    (b"CPU ", b"/KVM"),
    (b"fc_vcpu ", b""),
    (b"crosvm_vcpu", b""),
    (b"kvm-vcpu-", b""),
    (b"vcpu-", b""),
    (b"vcpu_", b""),
    (b"vcpu ", b""),
    (b"vcpu", b""),
];

/// The number of the vCPU that a thread of this comm runs; `None` if the comm does not say.
pub fn vcpu_number(comm: &[u8]) -> Option<u32> {
    FORMS.iter().find_map(|(prefix, suffix)| {
        let number = comm.strip_prefix(*prefix)?.strip_suffix(*suffix)?;
        // A sign is no digit.
        let digits = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        digits.then(|| std::str::from_utf8(number).ok()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_threads() {
        for (comm, number) in [
            ("CPU 0/KVM", Some(0)),
            ("CPU 287/KVM", Some(287)),
            ("CPU 1/TCG", None),
            ("fc_vcpu 3", Some(3)),
            ("vcpu12", Some(12)),
            ("vcpu-1", Some(1)),
            ("vcpu_1", Some(1)),
            ("crosvm_vcpu7", Some(7)),
            ("kvm-vcpu-2", Some(2)),
            ("vcpu", None),
            ("vcpu+1", None),
            ("vcpu1x", None),
            ("CPU 99999999999/KVM", None),
            ("qemu-system-x86", None),
            ("fc_api", None),
            ("IO mon_iothread", None),
        ] {
            assert_eq!(vcpu_number(comm.as_bytes()), number, "{comm}");
        }
    }

    #[test]
    fn fuzz_vcpu_name() {
        bolero::check!(name = "vcpu_name").for_each(|comm: &[u8]| {
            if let Some(number) = vcpu_number(comm) {
                let text = String::from_utf8(comm.to_vec()).unwrap();
                assert!(text.contains(&number.to_string()));
            }
        });
    }
}
