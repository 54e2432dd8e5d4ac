//! The programs that are measured side by side.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{
        Program, ProgramInfo, RawTracePoint, TracePoint, raw_trace_point::RawTracePointLinkId,
        trace_point::TracePointLinkId,
    },
};
use splitlock_agent::{
    host::{Host, tracefs::Tracefs},
    intake::ledgers::Ledgers,
    probes::{
        attach::{self, Sizes},
        catalogue,
        choice::KvmExits,
        plan,
    },
};

static REFERENCE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/reference"));

/// A hook of KVM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `kvm_exit`.
    Exit,
    /// `kvm_userspace_exit`.
    UserspaceExit,
}

impl Hook {
    /// The tracepoint in the category `kvm`.
    pub const fn tracepoint(self) -> &'static str {
        match self {
            Self::Exit => "kvm_exit",
            Self::UserspaceExit => "kvm_userspace_exit",
        }
    }
}

/// One program, and where it comes from.
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    object: Object,
    program: String,
    link: Option<Link>,
}

enum Object {
    Reference(Ebpf),
    /// With what its programs count into.
    Agent(Ebpf, Box<Ledgers>),
}

enum Link {
    Raw(RawTracePointLinkId),
    Classic(TracePointLinkId),
}

/// All that this kernel takes; those that it does not take are named on standard error.
pub fn load(hook: Hook) -> Vec<Contender> {
    let host = Host::read(&tracefs(), &catalogue::TRACEPOINTS);
    let raw = format!("enter_{}_raw", hook.tracepoint());
    let classic = format!("enter_{}", hook.tracepoint());
    let mut contenders = vec![];
    let mut add = |name, contender: Result<Contender>| match contender {
        Ok(contender) => contenders.push(contender),
        Err(error) => eprintln!("{name} is not measured: {error:#}"),
    };
    for (name, program) in [
        (EMPTY_RAW, "empty_raw"),
        ("one shared counter, raw", "array_raw"),
        ("one counter per CPU, raw", "per_cpu_array_raw"),
        ("per-CPU hash on (tgid, reason), raw", "hash_raw"),
        (EMPTY_CLASSIC, "empty_classic"),
    ] {
        add(name, reference(name, program));
    }
    for (name, program, which) in [
        ("splitlock-agent, raw", &raw, KvmExits::All),
        (
            "splitlock-agent --kvm-exits=locks, raw",
            &raw,
            KvmExits::Locks,
        ),
        ("splitlock-agent, classic", &classic, KvmExits::All),
        (
            "splitlock-agent --kvm-exits=locks, classic",
            &classic,
            KvmExits::Locks,
        ),
    ] {
        add(name, agent(name, program, &host, which));
    }
    contenders
}

/// The program that the raw ones are compared with.
pub const EMPTY_RAW: &str = "empty program, raw";
/// The program that the classic ones are compared with.
pub const EMPTY_CLASSIC: &str = "empty program, classic";

/// That of this machine, mounted for this process and its children where it is not.
pub fn tracefs() -> Tracefs {
    splitlock_agent::host::tracefs::provide()
}

fn reference(name: &'static str, program: &str) -> Result<Contender> {
    let object = EbpfLoader::new()
        .btf(None)
        .load(REFERENCE)
        .context("load")?;
    Contender::new(name, Object::Reference(object), program)
}

fn agent(name: &'static str, program: &str, host: &Host, which: KvmExits) -> Result<Contender> {
    const SIZES: Sizes = Sizes {
        trap_entries: 1024,
        exit_rows: 4096,
        record_bytes: 256 * 1024,
        records_per_second: 10,
    };
    let mut plan = plan::plan(host);
    plan.count_exits(which);
    let planned = plan
        .hooks
        .iter()
        .flat_map(|hook| &hook.rungs)
        .flat_map(|rung| rung.attachments)
        .any(|attachment| attachment.program() == Some(program));
    anyhow::ensure!(planned, "the plan for this kernel has no {program}");
    let mut object = attach::load(&plan, SIZES, false)?;
    let ledgers = Box::new(Ledgers::take(&mut object, SIZES.exit_rows)?);
    Contender::new(name, Object::Agent(object, ledgers), program)
}

impl Contender {
    fn new(name: &'static str, object: Object, program: &str) -> Result<Self> {
        let mut contender = Self {
            name,
            object,
            program: program.to_owned(),
            link: None,
        };
        match contender.program_mut()? {
            Program::RawTracePoint(program) => program.load(),
            Program::TracePoint(program) => program.load(),
            _ => anyhow::bail!("{program} is on no tracepoint"),
        }
        .context("load")?;
        Ok(contender)
    }

    fn program_mut(&mut self) -> Result<&mut Program> {
        let Self {
            object, program, ..
        } = self;
        let (Object::Reference(ebpf) | Object::Agent(ebpf, _)) = object;
        ebpf.program_mut(program)
            .with_context(|| format!("no program {program}"))
    }

    /// Attaches it behind those that are attached.
    pub fn attach(&mut self, hook: Hook) -> Result<()> {
        let link = match self.program_mut()? {
            Program::RawTracePoint(program) => Link::Raw(program.attach(hook.tracepoint())?),
            Program::TracePoint(program) => {
                Link::Classic(program.attach("kvm", hook.tracepoint())?)
            }
            _ => anyhow::bail!("{} is on no tracepoint", self.program),
        };
        self.link = Some(link);
        Ok(())
    }

    /// Takes it off again.
    pub fn detach(&mut self) -> Result<()> {
        match self.link.take() {
            Some(Link::Raw(link)) => {
                let program: &mut RawTracePoint = self.program_mut()?.try_into()?;
                program.detach(link)?;
            }
            Some(Link::Classic(link)) => {
                let program: &mut TracePoint = self.program_mut()?.try_into()?;
                program.detach(link)?;
            }
            None => {}
        }
        Ok(())
    }

    /// What the kernel knows of it.
    pub fn info(&mut self) -> Result<ProgramInfo> {
        Ok(self.program_mut()?.info()?)
    }

    /// Exits and returns that the agent's program counted; `None` for the others.
    pub fn counted(&self) -> Option<u64> {
        let Object::Agent(_, ledgers) = &self.object else {
            return None;
        };
        let mut tally = Default::default();
        for vcpu in ledgers.vcpus().flatten() {
            ledgers.rows.add_to(ledgers.row_of(vcpu).ok()?, &mut tally);
        }
        Some(tally.exits.iter().sum::<u64>() + tally.userspace.iter().sum::<u64>())
    }
}
