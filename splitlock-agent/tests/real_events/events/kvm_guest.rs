//! A minimal VMM whose guests raise real #AC or real exits.
//!
//! The results are what KVM_RUN returned, under the names that the exporter uses as `reason`: the
//! tracepoint `kvm:kvm_userspace_exit` fires once on each return of KVM_RUN (v6.18
//! virt/kvm/kvm_main.c, kvm_vcpu_ioctl).

mod code;

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::{io, ptr, thread};

use anyhow::{Context, Error, Result, bail, ensure};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};
use splitlock_agent::selftest::events::kvm_guest::{self, MAX_VCPUS, Vcpu};

use super::{Results, share};

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Alignment checks at CPL 3 in a 64-bit guest. As it has no IDT, each is a triple fault, and so
    /// a `shutdown`, after which the vCPU is set up anew.
    ///
    /// KVM intercepts the vector and injects it anew, whatever the split-lock mode (v6.18
    /// vmx_update_exception_bitmap and svm.c's init_vmcb). The one on the build machines, which runs
    /// guests without either, does too.
    AlignmentCheck,
    /// Writes to a port in a real-mode guest: `io`. Each vCPU then halts: `hlt`.
    PortIo,
    /// One exit for each of several reasons in every round, from 32-bit code: a write to a port
    /// (`io`), a halt (`hlt`), a CPUID, an RDMSR and a WRMSR, a write to a page that has no memory
    /// yet, and a write to an address that never has (`mmio`).
    EachReason,
    /// Nothing: KVM_RUN returns EINTR at once, which is a `restart`.
    Interrupted,
    /// The same, each KVM_RUN in a thread of its own, which ends before the next one begins.
    Successive,
}

impl Guest {
    /// All guests.
    pub const ALL: [Self; 5] = [
        Self::AlignmentCheck,
        Self::PortIo,
        Self::EachReason,
        Self::Interrupted,
        Self::Successive,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlignmentCheck => "alignment-check",
            Self::PortIo => "port-io",
            Self::EachReason => "each-reason",
            Self::Interrupted => "interrupted",
            Self::Successive => "successive",
        }
    }
}

impl FromStr for Guest {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|known| known.name() == name) {
            Some(guest) => Ok(guest),
            None => bail!(
                "no such guest: {name}; known: {:?}",
                Self::ALL.map(Self::name)
            ),
        }
    }
}

/// Runs one VM until its vCPUs have together done `count` of what `guest` does, and returns what
/// KVM_RUN returned: `io`, `hlt`, `mmio`, `shutdown`, `intr`, and `restart` for EINTR. Fails on anything else.
///
/// Each vCPU has a thread called `vcpu-N`, and they begin together. The threads and the VM stay
/// until the process ends, as a real VMM's do.
pub fn make(guest: Guest, count: u64, vcpus: u32) -> Result<Results> {
    ensure!(
        (1..=MAX_VCPUS).contains(&vcpus),
        "{vcpus} vCPUs: there is room for 1 to {MAX_VCPUS}"
    );
    let (kvm, cpuid) = kvm_guest::open()?;
    let vm = Arc::new(new_vm(&kvm, guest)?);
    let together = Arc::new(Barrier::new(vcpus as usize));
    let (sender, receiver) = channel();
    let vcpu_list = (0..vcpus)
        .map(|index| Vcpu::new(&vm, &cpuid, index))
        .collect::<Result<Vec<_>>>()?;
    for (vcpu, index) in vcpu_list.into_iter().zip(0..) {
        let (vm, together, sender) = (Arc::clone(&vm), Arc::clone(&together), sender.clone());
        thread::Builder::new()
            .name(format!("vcpu-{index}"))
            .spawn(move || {
                let (_vm, mut vcpu) = (vm, vcpu);
                together.wait();
                let result = serve(&mut vcpu, guest, share(count, index, vcpus));
                // Fails only after another vCPU failed, when no one listens any more.
                let _ = sender.send(result.with_context(|| format!("vCPU {index}")));
                drop(sender);
                loop {
                    thread::park();
                }
            })
            .context("starting a vCPU thread")?;
    }
    drop(sender);
    let mut results = Results::default();
    for _ in 0..vcpus {
        let vcpu = receiver.recv().context("a vCPU thread panicked")??;
        results.merge(&vcpu);
    }
    Ok(results)
}

/// Runs two VMs at a time, each with one vCPU, which does its part of `counts`.
pub fn make_two(guest: Guest, counts: [u64; 2]) -> Result<Results> {
    thread::scope(|scope| {
        let vms = counts.map(|count| scope.spawn(move || make(guest, count, 1)));
        let mut results = Results::default();
        for vm in vms {
            let Ok(vm) = vm.join() else {
                bail!("the thread of a VM panicked");
            };
            results.merge(&vm?);
        }
        Ok(results)
    })
}

/// Runs one VM whose only vCPU writes to a port again and again; after each write its thread takes a
/// `step` before the guest goes on. Returns only if something fails.
pub fn make_steps(mut step: impl FnMut() -> Result<()> + Send + 'static) -> Result<Infallible> {
    let (kvm, cpuid) = kvm_guest::open()?;
    let vm = new_vm(&kvm, Guest::PortIo)?;
    let mut vcpu = Vcpu::new(&vm, &cpuid, 0)?;
    let steps = thread::Builder::new()
        .name("vcpu-0".to_owned())
        .spawn(move || -> Result<Infallible> {
            // At a thousand a second it would be for weeks.
            enter_real_mode(&mut vcpu, u32::MAX.into())?;
            loop {
                vcpu.run_until("io")?;
                step()?;
            }
        })
        .context("starting the vCPU's thread")?;
    match steps.join() {
        Ok(failed) => failed,
        Err(_) => bail!("the vCPU's thread panicked"),
    }
}

/// Memory that is there when it is first written to, a part for each vCPU.
const UNTOUCHED: u64 = 0x10_0000;
const UNTOUCHED_PER_VCPU: u64 = 4096 * MAX_ROUNDS;
/// Rounds of one vCPU through [`code::EACH_REASON`].
const MAX_ROUNDS: u64 = 1024;
/// Where there is never memory.
const NO_MEMORY: u64 = 0xd000_0000;

fn new_vm(kvm: &Kvm, guest: Guest) -> Result<VmFd> {
    let vm = kvm_guest::new_vm(
        kvm,
        match guest {
            Guest::AlignmentCheck => &kvm_guest::ALIGNMENT_CHECK,
            Guest::EachReason => &code::EACH_REASON,
            Guest::PortIo | Guest::Interrupted | Guest::Successive => &code::PORT_IO,
        },
    )?;
    if guest == Guest::EachReason {
        add_untouched_memory(&vm)?;
    }
    Ok(vm)
}

/// Memory that no page stands behind until the guest writes there.
fn add_untouched_memory(vm: &VmFd) -> Result<()> {
    let size = UNTOUCHED_PER_VCPU * u64::from(MAX_VCPUS);
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    ensure!(
        memory != libc::MAP_FAILED,
        "mmap of {size} bytes: {}",
        io::Error::last_os_error()
    );
    // One write would otherwise bring 2 MiB, where the kernel is set to that. It fails where the
    // kernel knows no such pages.
    // SAFETY: the mapping made above.
    unsafe { libc::madvise(memory, size as usize, libc::MADV_NOHUGEPAGE) };
    let region = kvm_userspace_memory_region {
        slot: 1,
        guest_phys_addr: UNTOUCHED,
        memory_size: size,
        userspace_addr: memory as u64,
        ..Default::default()
    };
    // SAFETY: the mapping stays until the process ends, and nothing here uses it.
    unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION of slot 1")
}

/// Does `count` of what `guest` does, and returns what KVM_RUN returned.
fn serve(vcpu: &mut Vcpu, guest: Guest, count: u64) -> Result<Results> {
    match guest {
        Guest::AlignmentCheck => {
            for _ in 0..count {
                vcpu.enter_user_mode()?;
                vcpu.run_until("shutdown")?;
            }
        }
        Guest::PortIo if count > 0 => {
            enter_real_mode(vcpu, count)?;
            for _ in 0..count {
                vcpu.run_until("io")?;
            }
            vcpu.run_until("hlt")?;
        }
        Guest::PortIo => {}
        Guest::EachReason => {
            ensure!(
                count <= MAX_ROUNDS,
                "{count} rounds: a vCPU has {MAX_ROUNDS} pages"
            );
            enter_protected_mode(vcpu)?;
            for _ in 0..count {
                for reason in ["io", "hlt", "mmio"] {
                    vcpu.run_until(reason)?;
                }
            }
        }
        Guest::Interrupted => {
            enter_real_mode(vcpu, count)?;
            vcpu.fd.set_kvm_immediate_exit(1);
            for _ in 0..count {
                let reason = vcpu.run()?;
                ensure!(reason == "restart", "KVM_RUN returned {reason}, not EINTR");
            }
        }
        Guest::Successive => {
            enter_real_mode(vcpu, count)?;
            vcpu.fd.set_kvm_immediate_exit(1);
            for _ in 0..count {
                let run = thread::scope(|scope| scope.spawn(|| vcpu.run()).join());
                let Ok(reason) = run else {
                    bail!("a vCPU thread panicked");
                };
                let reason = reason?;
                ensure!(reason == "restart", "KVM_RUN returned {reason}, not EINTR");
            }
        }
    }
    Ok(vcpu.returned().clone())
}

/// 32-bit code at CPL 0, without paging.
fn enter_protected_mode(vcpu: &mut Vcpu) -> Result<()> {
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 0x10,
        type_: 0x3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let code = kvm_segment {
        selector: 0x8,
        type_: 0xb,
        ..data
    };
    let sregs = kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        ss: data,
        // CR0.PE
        cr0: vcpu.sregs.cr0 | 1,
        ..vcpu.sregs
    };
    let regs = kvm_regs {
        rip: kvm_guest::CODE,
        rdi: UNTOUCHED + u64::from(vcpu.index) * UNTOUCHED_PER_VCPU,
        rbp: NO_MEMORY,
        rflags: 0x2,
        ..Default::default()
    };
    vcpu.enter(&sregs, &regs)
}

/// 16-bit code, with `count` in ECX.
fn enter_real_mode(vcpu: &mut Vcpu, count: u64) -> Result<()> {
    let mut sregs = vcpu.sregs;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    let regs = kvm_regs {
        rip: kvm_guest::CODE,
        rcx: u32::try_from(count)
            .context("ECX counts the writes")?
            .into(),
        rflags: 0x2,
        ..Default::default()
    };
    vcpu.enter(&sregs, &regs)
}
