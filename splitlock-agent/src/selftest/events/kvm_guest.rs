//! A minimal VMM: one VM of 64 KiB, and vCPUs that begin in 64-bit user code.
//!
//! What a vCPU returned is counted under the names that the agent uses as `reason`: the tracepoint
//! `kvm:kvm_userspace_exit` fires once on each return of KVM_RUN (v6.18 virt/kvm/kvm_main.c,
//! kvm_vcpu_ioctl).

use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region,
    kvm_vcpu_events,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::Results;

const DEVICE: &str = "/dev/kvm";

/// Whether guests can run here; if not, what is missing and what to do about it.
pub fn available() -> Result<(), String> {
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => format!(
                "{DEVICE} does not exist: load kvm_intel or kvm_amd, or turn on virtualization in \
                 the firmware or nesting in the hypervisor"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("{DEVICE} may not be opened by this user: run as root or join its group")
            }
            _ => format!("{DEVICE} does not open: {error}"),
        });
    }
    Kvm::new()
        .and_then(|kvm| kvm.create_vm())
        .map(drop)
        .map_err(|error| format!("{DEVICE} opens but makes no VM: {error}"))
}

/// 64-bit code that raises `#AC` by a misaligned load. What follows the load runs only if that did not
/// trap; with IOPL 3 it ends in KVM_EXIT_IO, which is not taken for the shutdown.
#[rustfmt::skip]
pub const ALIGNMENT_CHECK: [u8; 18] = [
    0x9c,                                     // pushfq
    0x81, 0x0c, 0x24, 0x00, 0x00, 0x04, 0x00, // or dword ptr [rsp], 0x40000
    0x9d,                                     // popfq
    0x8b, 0x04, 0x25, 0x01, 0x50, 0x00, 0x00, // mov eax, [0x5001]
    0xe6, 0x10,                               // out 0x10, al
];

// The guest's physical memory, which is also its linear memory.
/// Where its code begins.
pub const CODE: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PD: u64 = 0x4000;
/// Top of the first vCPU's stack; those of the others are below.
const STACKS: u64 = 0xf000;
const STACK_SIZE: u64 = 0x100;
const MEMORY_SIZE: usize = 0x10000;
/// Most vCPUs that a VM has room for.
pub const MAX_VCPUS: u32 = 64;
#[repr(align(4096))]
struct Memory([u8; MEMORY_SIZE]);

/// Opens KVM, with what its guests are told of the CPU.
///
/// # Errors
/// What KVM refused.
pub fn open() -> Result<(Kvm, CpuId)> {
    let kvm = Kvm::new().context(DEVICE)?;
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .context("KVM_GET_SUPPORTED_CPUID")?;
    Ok((kvm, cpuid))
}

/// A VM whose vCPUs run `code`. Its memory stays until the process ends.
///
/// # Errors
/// What KVM refused.
pub fn new_vm(kvm: &Kvm, code: &[u8]) -> Result<VmFd> {
    let mut memory = Box::new(Memory([0; MEMORY_SIZE]));
    let mut write = |address: u64, bytes: &[u8]| {
        memory.0[address as usize..][..bytes.len()].copy_from_slice(bytes);
    };
    write(CODE, code);
    // Present, writable, user; the last is a page of 2 MiB at 0.
    write(PML4, &(PDPT | 0x7).to_le_bytes());
    write(PDPT, &(PD | 0x7).to_le_bytes());
    write(PD, &0x87_u64.to_le_bytes());

    let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
    // Intel before "unrestricted guest" keeps three pages here to run real mode.
    vm.set_tss_address(0xfffb_d000)
        .context("KVM_SET_TSS_ADDR")?;
    let region = kvm_userspace_memory_region {
        memory_size: MEMORY_SIZE as u64,
        userspace_addr: Box::into_raw(memory) as u64,
        ..Default::default()
    };
    // SAFETY: the memory was leaked, so it stays for as long as the guest may write to it, and
    // nothing here reads or writes it any more.
    unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
    Ok(vm)
}

/// A vCPU.
pub struct Vcpu {
    /// For what else KVM can do with it.
    pub fd: VcpuFd,
    /// Its registers as after a reset.
    pub sregs: kvm_sregs,
    /// Its number.
    pub index: u32,
    /// What makes it forget a pending exception.
    no_events: kvm_vcpu_events,
    returned: Results,
}

impl Vcpu {
    /// Makes one.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn new(vm: &VmFd, cpuid: &CpuId, index: u32) -> Result<Self> {
        let fd = vm
            .create_vcpu(index.into())
            .with_context(|| format!("KVM_CREATE_VCPU {index}"))?;
        fd.set_cpuid2(cpuid).context("KVM_SET_CPUID2")?;
        let mut returned = Results::default();
        for reason in ["io", "hlt", "mmio", "shutdown", "intr", "restart"] {
            returned.add(reason, 0);
        }
        Ok(Self {
            sregs: fd.get_sregs().context("KVM_GET_SREGS")?,
            no_events: fd.get_vcpu_events().context("KVM_GET_VCPU_EVENTS")?,
            fd,
            index,
            returned,
        })
    }

    /// What KVM_RUN returned so far: `io`, `hlt`, `mmio`, `shutdown`, `intr`, and `restart` for EINTR.
    pub fn returned(&self) -> &Results {
        &self.returned
    }

    /// Runs until KVM_RUN returns `wanted`, over interruptions.
    ///
    /// # Errors
    /// KVM_RUN failed, or returned something else.
    pub fn run_until(&mut self, wanted: &str) -> Result<()> {
        let reason = self.run_on()?;
        if reason != wanted {
            bail!(
                "KVM_RUN returned {reason}, not {wanted}: {:x?}",
                self.fd.get_regs()
            );
        }
        Ok(())
    }

    /// Runs until KVM_RUN returns for another reason than an interruption.
    ///
    /// # Errors
    /// KVM_RUN failed.
    pub fn run_on(&mut self) -> Result<&'static str> {
        loop {
            match self.run()? {
                "restart" | "intr" => {}
                reason => return Ok(reason),
            }
        }
    }

    /// One KVM_RUN, counted under its name.
    ///
    /// # Errors
    /// KVM_RUN failed, or returned for a reason that no guest here gives.
    pub fn run(&mut self) -> Result<&'static str> {
        let reason = match self.fd.run() {
            Ok(VcpuExit::IoOut(..)) => "io",
            Ok(VcpuExit::Hlt) => "hlt",
            Ok(VcpuExit::MmioWrite(..)) => "mmio",
            Ok(VcpuExit::Shutdown) => "shutdown",
            Ok(VcpuExit::Intr) => "intr",
            Ok(other) => bail!("KVM_RUN returned {other:?}"),
            Err(error) if error.errno() == libc::EINTR => "restart",
            Err(error) => return Err(error).context("KVM_RUN"),
        };
        self.returned.add(reason, 1);
        Ok(reason)
    }

    /// 64-bit code at CPL 3, with alignment checks allowed (CR0.AM) and ports too (IOPL 3).
    ///
    /// # Errors
    /// What KVM refused.
    pub fn enter_user_mode(&mut self) -> Result<()> {
        let data = kvm_segment {
            limit: u32::MAX,
            selector: 0x2b,
            type_: 0x3,
            present: 1,
            dpl: 3,
            db: 1,
            s: 1,
            g: 1,
            ..Default::default()
        };
        let code = kvm_segment {
            selector: 0x33,
            type_: 0xb,
            db: 0,
            l: 1,
            ..data
        };
        let sregs = kvm_sregs {
            cs: code,
            ds: data,
            es: data,
            ss: data,
            cr0: 0x8005_0033,
            cr3: PML4,
            cr4: 0x620,
            efer: 0x501,
            ..self.sregs
        };
        let regs = kvm_regs {
            rip: CODE,
            rsp: STACKS - u64::from(self.index) * STACK_SIZE,
            rflags: 0x3002,
            ..Default::default()
        };
        self.enter(&sregs, &regs)
    }

    /// Sets it up anew. After a shutdown the exception is still pending, and on AMD all registers are
    /// as after INIT.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn enter(&mut self, sregs: &kvm_sregs, regs: &kvm_regs) -> Result<()> {
        self.fd
            .set_vcpu_events(&self.no_events)
            .context("KVM_SET_VCPU_EVENTS")?;
        self.fd.set_sregs(sregs).context("KVM_SET_SREGS")?;
        self.fd.set_regs(regs).context("KVM_SET_REGS")
    }
}
