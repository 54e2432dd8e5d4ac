use super::*;
use crate::host::{KernelLayout, vcpu::VcpuLayout};

/// Assembles BTF from types and strings.
struct Maker {
    types: Vec<u8>,
    strings: Vec<u8>,
    strings_start: u32,
}

impl Maker {
    fn new(strings_start: u32) -> Self {
        let strings = if strings_start == 0 { vec![0] } else { vec![] };
        Self {
            types: vec![],
            strings,
            strings_start,
        }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let offset = self.strings_start + self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        offset
    }

    fn add(&mut self, name: &str, kind: u32, vlen: u32, size_or_type: u32, rest: &[u32]) {
        let name = self.string(name);
        for value in [name, kind << 24 | vlen, size_or_type] {
            self.types.extend(value.to_le_bytes());
        }
        for value in rest {
            self.types.extend(value.to_le_bytes());
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for value in [
            HEADER_LEN,
            0,
            self.types.len(),
            self.types.len(),
            self.strings.len(),
        ] {
            bytes.extend((value as u32).to_le_bytes());
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

fn vmlinux() -> Maker {
    let mut maker = Maker::new(0);
    maker.add("int", KIND_INT, 0, 4, &[0x0100_0020]); // 1
    let si_code = maker.string("si_code");
    maker.add("", KIND_STRUCT, 1, 12, &[si_code, 1, 64]); // 2
    maker.add("", KIND_UNION, 1, 48, &[0, 2, 0]); // 3
    let (pad, inner) = (maker.string("pad"), maker.string("inner"));
    maker.add(
        "kernel_siginfo",
        KIND_STRUCT,
        3,
        60,
        &[pad, 1, 0, 0, 3, 32, inner, 5, 448],
    ); // 4
    maker.add("alias", KIND_TYPEDEF, 0, 2, &[]); // 5
    maker.add("", KIND_PTR, 0, 4, &[]); // 6
    maker.add("", KIND_PTR, 0, 0, &[]); // 7
    maker.add("", KIND_FUNC_PROTO, 3, 0, &[0, 7, 0, 1, 0, 6]); // 8
    maker.add("", KIND_PTR, 0, 8, &[]); // 9
    maker.add("btf_trace_signal_generate", KIND_TYPEDEF, 0, 9, &[]); // 10
    let (a, b) = (maker.string("BPF_FUNC_a"), maker.string("BPF_FUNC_b"));
    maker.add("bpf_func_id", KIND_ENUM, 2, 4, &[a, 0, b, 1]); // 11
    maker
}

#[test]
fn members_are_found_in_anonymous_ones_and_through_names() {
    let bytes = vmlinux().bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert_eq!(btf.member_offset("kernel_siginfo", "pad"), Ok(0));
    assert_eq!(btf.member_offset("kernel_siginfo", "si_code"), Ok(4 + 8));
    assert_eq!(
        btf.member_offset("kernel_siginfo", "inner.si_code"),
        Ok(56 + 8)
    );
    assert_eq!(btf.size("kernel_siginfo"), Ok(60));
    assert!(matches!(
        btf.member_offset("kernel_siginfo", "inner.none"),
        Err(BtfError::NoMember(..))
    ));
    assert!(matches!(btf.size("nothing"), Err(BtfError::NoType(_))));
}

#[test]
fn prototypes_leave_out_the_private_pointer() {
    let bytes = vmlinux().bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert_eq!(
        btf.tracepoint_prototype("signal_generate").unwrap(),
        "int, struct kernel_siginfo *"
    );
    assert!(btf.tracepoint_prototype("kvm_exit").is_err());
}

#[test]
fn enumerators() {
    let bytes = vmlinux().bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert_eq!(btf.enumerator("bpf_func_id", "BPF_FUNC_b"), Ok(Some(1)));
    assert_eq!(btf.enumerator("bpf_func_id", "BPF_FUNC_c"), Ok(None));
}

#[test]
fn a_module_continues_the_numbers_and_strings_of_vmlinux() {
    let base_maker = vmlinux();
    let base_bytes = base_maker.bytes();
    let base = Btf::parse(&base_bytes, None).unwrap();
    let mut maker = Maker::new(base_maker.strings.len() as u32);
    maker.add("", KIND_FUNC_PROTO, 3, 0, &[0, 7, 0, 6, 0, 1]); // 12
    maker.add("", KIND_PTR, 0, 12, &[]); // 13
    maker.add("btf_trace_kvm_exit", KIND_TYPEDEF, 0, 13, &[]); // 14
    let bytes = maker.bytes();
    let module = Btf::parse(&bytes, Some(&base)).unwrap();
    assert_eq!(
        module.tracepoint_prototype("kvm_exit").unwrap(),
        "struct kernel_siginfo *, int"
    );
    assert_eq!(module.member_offset("kernel_siginfo", "si_code"), Ok(12));
}

#[test]
fn broken_bytes_are_an_error_at_any_length() {
    let bytes = vmlinux().bytes();
    for len in 0..bytes.len() {
        assert!(Btf::parse(&bytes[..len], None).is_err(), "{len}");
    }
    let mut unknown = Maker::new(0);
    unknown.add("x", 31, 0, 0, &[]);
    assert_eq!(
        Btf::parse(&unknown.bytes(), None).err(),
        Some(BtfError::UnknownKind(31))
    );
}

#[test]
fn a_type_that_contains_itself_ends() {
    let mut maker = Maker::new(0);
    maker.add("loop", KIND_STRUCT, 1, 8, &[0, 1, 0]); // 1: an anonymous member of its own type
    maker.add("self", KIND_TYPEDEF, 0, 2, &[]); // 2
    let bytes = maker.bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert!(btf.member_offset("loop", "x").is_err());
    assert_eq!(btf.resolve(2), 2);
}

/// The running kernel's own BTF, against what its headers say.
#[test]
fn the_running_kernel() {
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        println!("skipped: this kernel has no /sys/kernel/btf/vmlinux");
        return;
    };
    let btf = Btf::parse(&bytes, None).unwrap();
    // arch/x86/include/uapi/asm/ptrace.h: 15 registers, orig_rax, rip, cs, eflags.
    assert_eq!(btf.member_offset("pt_regs", "orig_ax"), Ok(120));
    assert_eq!(btf.member_offset("pt_regs", "ip"), Ok(128));
    assert_eq!(btf.member_offset("pt_regs", "flags"), Ok(144));
    // include/uapi/asm-generic/siginfo.h: si_signo, si_errno, si_code.
    assert_eq!(btf.member_offset("kernel_siginfo", "si_code"), Ok(8));
    assert_eq!(
        btf.tracepoint_prototype("signal_generate").unwrap(),
        "int, struct kernel_siginfo *, struct task_struct *, int, int"
    );
}

/// Anonymous structures in each other, each with two of the next: 2^30 ways to a name that is not there.
#[test]
fn ways_without_number_come_to_an_end() {
    let mut maker = Maker::new(0);
    for next in 2..=31 {
        let name = if next == 2 { "maze" } else { "" };
        maker.add(name, KIND_STRUCT, 2, 8, &[0, next, 0, 0, next, 0]);
    }
    maker.add("", KIND_STRUCT, 0, 0, &[]);
    let bytes = maker.bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert!(btf.member_offset("maze", "x").is_err());
}

#[test]
fn offsets_beyond_all_bounds_are_an_error() {
    let mut maker = Maker::new(0);
    let (x, y) = (maker.string("x"), maker.string("y"));
    maker.add("outer", KIND_STRUCT, 1, 8, &[0, 2, u32::MAX]); // 1
    maker.add("", KIND_STRUCT, 1, 8, &[x, 3, u32::MAX]); // 2
    maker.add("inner", KIND_STRUCT, 1, 8, &[y, 1, u32::MAX]); // 3
    let bytes = maker.bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert!(btf.member_offset("outer", "x").is_err());
}

/// Asks all that the agent asks, and for every name that the bytes have.
fn interrogate(btf: &Btf<'_>) {
    let _ = KernelLayout::read(btf);
    let _ = VcpuLayout::of(btf);
    for tracepoint in ["signal_generate", "kvm_exit", "kvm_inj_exception"] {
        if let Ok(prototype) = btf.tracepoint_prototype(tracepoint) {
            assert!(prototype.len() < 64 << 10, "{}", prototype.len());
        }
    }
    let names: Vec<String> = btf
        .strings
        .split(|byte| *byte == 0)
        .filter_map(|name| Some(std::str::from_utf8(name).ok()?.to_owned()))
        .take(16)
        .collect();
    for name in &names {
        let _ = (btf.size(name), btf.function_id(name), btf.variable_id(name));
        for inner in &names {
            let _ = btf.member_offset(name, inner);
            let _ = btf.enumerator(name, inner);
        }
        if let Ok(id) = btf.find(name, &[KIND_STRUCT, KIND_UNION]) {
            assert!(
                btf.get(id)
                    .is_some_and(|found| btf.string(found.name) == name.as_bytes())
            );
        }
    }
}

/// The whole of a BTF, or only its types and strings, behind where they part: a header that fits is
/// made for them. The same bytes are the BTF of a kernel, and of a module of another kernel.
#[test]
fn fuzz_btf() {
    let kernel_bytes = vmlinux().bytes();
    let kernel = Btf::parse(&kernel_bytes, None).unwrap();
    bolero::check!(name = "btf").for_each(|input: &[u8]| {
        let made = if input.starts_with(&MAGIC.to_le_bytes()) {
            input.to_vec()
        } else {
            let Some((parts, rest)) = input.split_first_chunk() else {
                return;
            };
            let at = usize::from(u16::from_le_bytes(*parts)).min(rest.len());
            let (types, strings) = rest.split_at(at);
            Maker {
                types: types.to_vec(),
                strings: strings.to_vec(),
                strings_start: 0,
            }
            .bytes()
        };
        for base in [None, Some(&kernel)] {
            if let Ok(btf) = Btf::parse(&made, base) {
                interrogate(&btf);
            }
        }
    });
}
