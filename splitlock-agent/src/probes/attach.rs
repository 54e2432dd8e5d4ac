//! Loading the BPF object and attaching the plan's rungs: the first of each hook that the kernel
//! accepts.

use anyhow::{Context as _, Result, bail};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint, TracePoint},
};
use splitlock_common::{Hook, HookSet, authority::authorities};
use tracing::{debug, info, warn};

use super::{
    Probe,
    catalogue::{Attachment, LADDERS, Rung, Via},
    choice::KvmExits,
    kernel_btf,
    plan::{Plan, PlannedHook, Refusal},
};
use crate::host::privileges;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/splitlock-ebpf"));

/// The hook without which there is nothing to run for: it exists on every kernel.
const REQUIRED: Hook = Hook::SignalGenerate;

/// Sizes of the maps and limits of the programs.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Subjects in the trap ledger.
    pub trap_entries: u32,
    /// vCPU threads in the exit ledger: a power of two.
    pub exit_rows: u32,
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub record_bytes: u32,
    /// Records that one subject may write in one second.
    pub records_per_second: u32,
}

/// Loads the object with its globals and sizes set; no program is loaded yet.
pub fn load(plan: &Plan, sizes: Sizes, debug_lines: bool) -> Result<Ebpf> {
    let row_mask = sizes.exit_rows - 1;
    let mut loader = EbpfLoader::new();
    // The object needs no relocation against the kernel's types: offsets come as globals.
    loader
        .btf(None)
        .map_max_entries("TRAPS", sizes.trap_entries)
        .map_max_entries("CALLS", sizes.trap_entries)
        .map_max_entries("EXIT_ROWS", sizes.exit_rows)
        .map_max_entries("EXIT_OWNERS", sizes.exit_rows)
        .map_max_entries("TAKEN_ROWS", sizes.exit_rows)
        .map_max_entries("RECORDS", sizes.record_bytes)
        .override_global("EXIT_ROW_MASK", &row_mask, true)
        .override_global("RECORDS_PER_SECOND", &sizes.records_per_second, true);
    for (name, value) in &plan.globals {
        loader.override_global(name, value, true);
    }
    // aya-log's levels: 0 is off, 4 is debug.
    let level: u8 = if debug_lines { 4 } else { 0 };
    loader.override_global("AYA_LOG_LEVEL", &level, true);
    loader
        .load(OBJECT)
        .context("loading the BPF object: the kernel refused one of its maps")
}

/// Attaches what the plan has, then lets the attached hooks count.
///
/// `kernel_log` says whether `/dev/kmsg` could be opened.
///
/// # Errors
/// The required hook has no rung, or the table of authorities cannot be written.
pub fn attach(ebpf: &mut Ebpf, plan: Plan, kernel_log: &Result<(), String>) -> Result<Vec<Probe>> {
    let mut btf = KernelBtf::NotRead;
    let counts_exits = plan.kvm_exits == KvmExits::All;
    let hooks: Vec<(Hook, Option<Via>, Vec<Refusal>)> = plan
        .hooks
        .into_iter()
        .map(|planned| attach_hook(ebpf, planned, kernel_log, &mut btf))
        .collect();
    let attached = hooks
        .iter()
        .filter(|(_, via, _)| via.is_some())
        .fold(HookSet::empty(), |set, (hook, ..)| set.with(*hook));
    let table = authorities(attached);
    let probes: Vec<Probe> = hooks
        .into_iter()
        .map(|(hook, via, refusals)| Probe {
            hook,
            via,
            authority: table[hook as usize],
            counts_exits: counts_exits && KvmExits::HOOKS.contains(&hook),
            refusals,
            detached: None,
        })
        .collect();
    report(&probes);
    if !attached.contains(REQUIRED) {
        bail!(
            "the hook {} has no way to attach here{}: {}",
            REQUIRED.name(),
            if privileges::is_locked_down() {
                ", as the kernel is locked down (confidentiality) and lets no program read its memory"
            } else {
                ""
            },
            reasons(&probes[REQUIRED as usize].refusals)
        );
    }

    let mut authority: Array<&mut MapData, u32> = ebpf
        .map_mut("AUTHORITY")
        .context("the BPF object has no map AUTHORITY")?
        .try_into()?;
    for (hook, events) in Hook::ALL.into_iter().zip(table) {
        authority
            .set(hook as u32, events.bits(), 0)
            .with_context(|| format!("letting {} count", hook.name()))?;
    }
    Ok(probes)
}

fn report(probes: &[Probe]) {
    for probe in probes {
        let hook = probe.hook.name();
        match probe.via {
            Some(via) => {
                info!(probe = hook, via = via.name(), "attached");
                for refusal in &probe.refusals {
                    debug!(
                        probe = hook,
                        via = refusal.via.name(),
                        reason = refusal.reason,
                        "passed over"
                    );
                }
            }
            None => warn!(
                probe = hook,
                reasons = reasons(&probe.refusals),
                "not attached"
            ),
        }
    }
}

fn reasons(refusals: &[Refusal]) -> String {
    let reasons: Vec<String> = refusals
        .iter()
        .map(|refusal| format!("{}: {}", refusal.via.name(), refusal.reason))
        .collect();
    reasons.join("; ")
}

fn attach_hook(
    ebpf: &mut Ebpf,
    planned: PlannedHook,
    kernel_log: &Result<(), String>,
    btf: &mut KernelBtf,
) -> (Hook, Option<Via>, Vec<Refusal>) {
    let PlannedHook {
        hook,
        rungs,
        mut refusals,
    } = planned;
    for rung in rungs {
        match attach_rung(ebpf, rung, kernel_log, btf) {
            Ok(()) => return (hook, Some(rung.via), refusals),
            Err(error) => refusals.push(Refusal {
                via: rung.via,
                reason: one_line(&error),
            }),
        }
    }
    refusals.sort_by_key(|refusal| refusal.via);
    (hook, None, refusals)
}

/// An error with its causes on one line. Of the verifier's log, which is long and goes to the
/// debug level, it has the line that says what is wrong.
fn one_line(error: &anyhow::Error) -> String {
    let mut causes: Vec<String> = vec![];
    for cause in error.chain() {
        let text = cause.to_string();
        let (head, log) = text.split_once(". Verifier output").unwrap_or((&text, ""));
        let mut head = head.lines().next().unwrap_or_default().to_owned();
        if let Some(verdict) = verdict(log) {
            debug!(log, "the kernel's verifier");
            head = format!("{head} ({verdict})");
        }
        if !causes.iter().any(|known| known.contains(&head)) {
            causes.push(head);
        }
    }
    causes.join(": ")
}

/// The verifier's last line before its statistics.
fn verdict(log: &str) -> Option<&str> {
    let statistics = [
        "verification time ",
        "stack depth ",
        "processed ",
        "subprog ",
    ];
    log.lines()
        .rev()
        .map(|line| line.trim_matches([':', ' ']))
        .find(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
}

fn attach_rung(
    ebpf: &mut Ebpf,
    rung: &Rung,
    kernel_log: &Result<(), String>,
    btf: &mut KernelBtf,
) -> Result<()> {
    for (done, attachment) in rung.attachments.iter().enumerate() {
        if let Err(error) = attach_one(ebpf, attachment, kernel_log, btf) {
            // The one that failed may be loaded.
            for attached in &rung.attachments[..=done] {
                unload(ebpf, attached);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the BPF object has no program {name}"))
}

fn attach_one(
    ebpf: &mut Ebpf,
    attachment: &Attachment,
    kernel_log: &Result<(), String>,
    btf: &mut KernelBtf,
) -> Result<()> {
    match *attachment {
        Attachment::Raw(name, tracepoint) => {
            let program: &mut RawTracePoint = program(ebpf, name)?.try_into()?;
            program.load().context("load")?;
            program.attach(tracepoint.name).context("attach")?;
        }
        Attachment::Classic(name, tracepoint) => {
            let program: &mut TracePoint = program(ebpf, name)?.try_into()?;
            program.load().context("load")?;
            program
                .attach(tracepoint.category, tracepoint.name)
                .context("attach")?;
        }
        Attachment::Fentry(name, function) => {
            let program: &mut FEntry = program(ebpf, name)?.try_into()?;
            program.load(function, btf.get()?).context("load")?;
            program.attach().context("attach")?;
        }
        Attachment::Fexit(name, function) => {
            let program: &mut FExit = program(ebpf, name)?.try_into()?;
            program.load(function, btf.get()?).context("load")?;
            program.attach().context("attach")?;
        }
        Attachment::Kprobe(name, function) | Attachment::Kretprobe(name, function) => {
            let program: &mut KProbe = program(ebpf, name)?.try_into()?;
            program.load().context("load")?;
            program.attach(function, 0).context("attach")?;
        }
        Attachment::KernelLog => {
            if let Err(reason) = kernel_log {
                bail!("{reason}");
            }
        }
    }
    Ok(())
}

/// Takes a program off again. That it fails is only worth a line: what is left ends with the agent.
fn unload(ebpf: &mut Ebpf, attachment: &Attachment) {
    if let Some(name) = attachment.program() {
        unload_program(ebpf, name);
    }
}

/// The same for a program by its name.
pub(super) fn unload_program(ebpf: &mut Ebpf, name: &str) {
    let result = match ebpf.program_mut(name) {
        Some(Program::RawTracePoint(program)) => program.unload(),
        Some(Program::TracePoint(program)) => program.unload(),
        Some(Program::FEntry(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        Some(Program::KProbe(program)) => program.unload(),
        _ => Ok(()),
    };
    if let Err(error) = result
        && !matches!(error, ProgramError::NotLoaded)
    {
        warn!(program = name, %error, "could not be taken off again");
    }
}

/// What aya is to know of the kernel's BTF, wanted only where a rung by fentry is tried.
enum KernelBtf {
    NotRead,
    Read(Box<Btf>),
    Unreadable(String),
}

impl KernelBtf {
    fn get(&mut self) -> Result<&Btf> {
        if matches!(self, Self::NotRead) {
            *self = match kernel_btf::stand_in(&functions()) {
                Ok(btf) => Self::Read(Box::new(btf)),
                Err(error) => Self::Unreadable(format!("{error:#}")),
            };
        }
        match self {
            Self::Read(btf) => Ok(btf),
            Self::Unreadable(reason) => bail!("the kernel's BTF is unreadable: {reason}"),
            Self::NotRead => bail!("the kernel's BTF was not read"),
        }
    }
}

/// The functions that the catalogue attaches to by fentry.
fn functions() -> Vec<&'static str> {
    LADDERS
        .iter()
        .flat_map(|ladder| ladder.rungs)
        .flat_map(|rung| rung.attachments)
        .filter_map(|attachment| match attachment {
            Attachment::Fentry(_, function) => Some(*function),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_line_before_the_statistics() {
        let log = ": 0: R1=ctx() R10=fp0\n288: (79) r1 = *(u64 *)(r4 +56)\nR4 unbounded memory access\n\
                   verification time 23 usec\nstack depth 360+0\nprocessed 10 insns (limit 1000000)\n\n";
        assert_eq!(verdict(log), Some("R4 unbounded memory access"));
        assert_eq!(verdict(": "), None);
        assert_eq!(verdict(""), None);
    }

    #[test]
    fn an_error_is_one_line_without_repetition() {
        let inner = anyhow::anyhow!(
            "the BPF_PROG_LOAD syscall returned EPERM. Verifier output: \nfd 22 is bad\nprocessed 0 insns"
        );
        let error = inner.context("load");
        assert_eq!(
            one_line(&error),
            "load: the BPF_PROG_LOAD syscall returned EPERM (fd 22 is bad)"
        );
        let error = anyhow::anyhow!("no such file").context("x: no such file");
        assert_eq!(one_line(&error), "x: no such file");
    }
}
