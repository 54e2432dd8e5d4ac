//! What this machine is: kernel, CPU, tracepoint formats, structure layouts. Knows nothing of BPF
//! programs.

use std::{collections::BTreeMap, fs, path::PathBuf};

pub mod btf;
pub mod clock;
pub mod cpu;
pub mod format;
pub mod preemption;
pub mod privileges;
pub mod symbols;
pub mod tracefs;
pub mod vcpu;

use splitlock_common::record::PT_REGS_WORDS;

use btf::{Btf, BtfError};
use cpu::CpuFeatures;
use format::Format;
use tracefs::Tracefs;
use vcpu::VcpuLayout;

/// A tracepoint: its category and name in tracefs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tracepoint {
    /// Category, which is also the name of the module that may hold it.
    pub category: &'static str,
    /// Name.
    pub name: &'static str,
}

/// Offsets in bytes inside the kernel's structures, and other facts that the programs need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// `task_struct.pid`: a thread's number.
    pub task_pid: u32,
    /// `task_struct.group_leader`.
    pub task_group_leader: u32,
    /// `task_struct.start_boottime`, before 5.5 `real_start_time`.
    pub task_start_boottime: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `task_struct.stack`.
    pub task_stack: u32,
    /// `task_struct.blocked`.
    pub task_blocked: u32,
    /// `task_struct.pending.signal`.
    pub task_pending: u32,
    /// Whether the helper `bpf_get_current_task_btf` exists (5.11+).
    pub has_current_task_btf: bool,
    /// From the base of a task's stack to its saved user registers; `None` where the helper
    /// `bpf_task_pt_regs` (5.15+) finds them.
    pub stack_to_pt_regs: Option<u32>,
    /// `pt_regs.ip`.
    pub pt_regs_ip: u32,
    /// `pt_regs.flags`.
    pub pt_regs_flags: u32,
    /// `pt_regs.orig_ax`.
    pub pt_regs_orig_ax: u32,
    /// Where in `pt_regs` the general registers are, in the order of their numbers in an
    /// instruction; `None` where they are not all in its first [`PT_REGS_WORDS`] words.
    pub general_registers: Option<[u32; 16]>,
    /// `kernel_siginfo.si_code`.
    pub siginfo_code: u32,
}

impl KernelLayout {
    /// Asks the kernel's BTF.
    pub fn read(btf: &Btf<'_>) -> Result<Self, BtfError> {
        Ok(Self {
            task_pid: btf.member_offset("task_struct", "pid")?,
            task_group_leader: btf.member_offset("task_struct", "group_leader")?,
            task_start_boottime: btf
                .member_offset("task_struct", "start_boottime")
                .or_else(|_| btf.member_offset("task_struct", "real_start_time"))?,
            task_comm: btf.member_offset("task_struct", "comm")?,
            task_stack: btf.member_offset("task_struct", "stack")?,
            task_blocked: btf.member_offset("task_struct", "blocked")?,
            task_pending: btf.member_offset("task_struct", "pending.signal")?,
            has_current_task_btf: btf
                .enumerator("bpf_func_id", "BPF_FUNC_get_current_task_btf")?
                .is_some(),
            stack_to_pt_regs: if btf
                .enumerator("bpf_func_id", "BPF_FUNC_task_pt_regs")?
                .is_some()
            {
                None
            } else {
                // `task_pt_regs`: they are at the top of the stack. Kernels that leave room above
                // them (FRED, 6.9) have the helper.
                Some(stack_size(btf).saturating_sub(btf.size("pt_regs")?))
            },
            pt_regs_ip: btf.member_offset("pt_regs", "ip")?,
            pt_regs_flags: btf.member_offset("pt_regs", "flags")?,
            pt_regs_orig_ax: btf.member_offset("pt_regs", "orig_ax")?,
            general_registers: general_registers(btf),
            siginfo_code: btf.member_offset("kernel_siginfo", "si_code")?,
        })
    }
}

/// Names of the general registers in `pt_regs`, in the order of their numbers in an instruction.
const GENERAL_REGISTERS: [&str; 16] = [
    "ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

fn general_registers(btf: &Btf<'_>) -> Option<[u32; 16]> {
    let mut offsets = [0; 16];
    for (offset, name) in offsets.iter_mut().zip(GENERAL_REGISTERS) {
        let found = btf.member_offset("pt_regs", name).ok()?;
        if found % 8 != 0 || found as usize / 8 >= PT_REGS_WORDS {
            return None;
        }
        *offset = found;
    }
    Some(offsets)
}

/// Size of a task's kernel stack. `union thread_union` has it, where that is in BTF; else it is
/// `THREAD_SIZE` of x86-64, four pages, and twice that with KASAN, which also gives a task its
/// `kasan_depth` (arch/x86/include/asm/page_64_types.h and include/linux/sched.h, 5.10).
fn stack_size(btf: &Btf<'_>) -> u32 {
    const FOUR_PAGES: u32 = 4 * 4096;
    match btf.size("thread_union") {
        Ok(size) => size,
        Err(_) if btf.member_offset("task_struct", "kasan_depth").is_ok() => 2 * FOUR_PAGES,
        Err(_) => FOUR_PAGES,
    }
}

/// The facts that planning rests on. Each that could not be had says why.
#[derive(Clone, Debug)]
pub struct Host {
    /// `uname -r`.
    pub kernel_release: String,
    /// Whether a task can be preempted inside the kernel.
    pub preemptible: bool,
    /// The CPU's features; `None` where its flags could not be read.
    pub cpu: Option<CpuFeatures>,
    /// The boot parameter `split_lock_detect=`.
    pub parameter: Option<String>,
    /// Whether the kernel may leave bus-lock detection off whatever its mode says: up to 6.12 only
    /// `init_intel` turned it on ("x86/bus_lock: Add support for AMD" made `bus_lock_init` a function of
    /// its own, called for every CPU).
    pub arming_is_doubtful: bool,
    /// Structure layouts.
    pub layout: Result<KernelLayout, String>,
    /// Layouts of KVM's structures.
    pub vcpu: Result<VcpuLayout, String>,
    /// Record formats of the tracepoints asked for.
    pub formats: BTreeMap<Tracepoint, Result<Format, String>>,
    /// Arguments of the tracepoints asked for.
    pub prototypes: BTreeMap<Tracepoint, Result<String, String>>,
}

impl Host {
    /// Reads this machine; nothing here fails as a whole.
    pub fn read(tracefs: &Tracefs, tracepoints: &[Tracepoint]) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let Types {
            layout,
            vcpu,
            prototypes,
            arms_all_makers,
        } = Types::read(tracepoints);
        let kernel_release = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let arms_all_makers = arms_all_makers || version(&kernel_release) >= Some((6, 13));
        Self {
            arming_is_doubtful: !arms_all_makers && !cpu::is_intel(&cpuinfo),
            preemptible: preemption::kernel_is_preemptible(version(&kernel_release)),
            kernel_release,
            cpu: CpuFeatures::parse(&cpuinfo),
            parameter: cpu::parameter(&read("/proc/cmdline")),
            layout,
            vcpu,
            formats: tracepoints
                .iter()
                .map(|tracepoint| (*tracepoint, read_format(tracefs, *tracepoint)))
                .collect(),
            prototypes,
        }
    }

    /// Whether a program on a raw tracepoint can be preempted: from 7.0 on tracepoints are guarded
    /// by SRCU-fast, before they turned preemption off ("tracing: Guard __DECLARE_TRACE() use of
    /// __DO_TRACE_CALL() with SRCU-fast").
    pub fn preemptible_tracepoints(&self) -> bool {
        self.kernel_version() >= Some((7, 0))
    }

    /// Major and minor number of the kernel.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        version(&self.kernel_release)
    }
}

/// Major and minor number of a release.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether `kernel.split_lock_mitigate` (6.2+, also in stable 6.0 and 6.1) is on; `None` on other
/// kernels.
pub fn mitigation() -> Option<bool> {
    match fs::read_to_string("/proc/sys/kernel/split_lock_mitigate")
        .ok()?
        .trim()
    {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn read_format(tracefs: &Tracefs, tracepoint: Tracepoint) -> Result<Format, String> {
    let root = match tracefs {
        Tracefs::Found(path) | Tracefs::Private(path) => path,
        Tracefs::Missing(reason) => return Err(reason.clone()),
    };
    let path: PathBuf = root
        .join("events")
        .join(tracepoint.category)
        .join(tracepoint.name)
        .join("format");
    fs::read_to_string(&path)
        .map(|text| Format::parse(&text))
        .map_err(|error| format!("{}: {error}", path.display()))
}

const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What BTF tells.
struct Types {
    layout: Result<KernelLayout, String>,
    vcpu: Result<VcpuLayout, String>,
    prototypes: BTreeMap<Tracepoint, Result<String, String>>,
    arms_all_makers: bool,
}

impl Types {
    fn read(tracepoints: &[Tracepoint]) -> Self {
        let bytes = match fs::read(VMLINUX_BTF) {
            Ok(bytes) => bytes,
            Err(error) => {
                let reason = format!(
                    "{VMLINUX_BTF}: {error}; the kernel needs CONFIG_DEBUG_INFO_BTF (default in \
                     all large distributions)"
                );
                return Self::missing(tracepoints, &reason);
            }
        };
        let vmlinux = match Btf::parse(&bytes, None) {
            Ok(btf) => btf,
            Err(error) => {
                return Self::missing(tracepoints, &format!("{VMLINUX_BTF}: {error}"));
            }
        };
        Self {
            arms_all_makers: vmlinux.function_id("bus_lock_init").is_ok(),
            layout: KernelLayout::read(&vmlinux).map_err(|error| format!("{VMLINUX_BTF}: {error}")),
            vcpu: VcpuLayout::read(&vmlinux),
            prototypes: tracepoints
                .iter()
                .map(|tracepoint| (*tracepoint, read_prototype(&vmlinux, *tracepoint)))
                .collect(),
        }
    }

    fn missing(tracepoints: &[Tracepoint], reason: &str) -> Self {
        Self {
            arms_all_makers: false,
            layout: Err(reason.to_owned()),
            vcpu: Err(reason.to_owned()),
            prototypes: tracepoints
                .iter()
                .map(|tracepoint| (*tracepoint, Err(reason.to_owned())))
                .collect(),
        }
    }
}

/// The prototype is in vmlinux, or in the BTF of the module that is called like the category.
fn read_prototype(vmlinux: &Btf<'_>, tracepoint: Tracepoint) -> Result<String, String> {
    match vmlinux.tracepoint_prototype(tracepoint.name) {
        Ok(prototype) => return Ok(prototype),
        Err(BtfError::NoType(_)) => {}
        Err(error) => return Err(format!("{VMLINUX_BTF}: {error}")),
    }
    let path = format!("/sys/kernel/btf/{}", tracepoint.category);
    let bytes = fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
    Btf::parse(&bytes, Some(vmlinux))
        .and_then(|module| module.tracepoint_prototype(tracepoint.name))
        .map_err(|error| format!("{path}: {error}"))
}
