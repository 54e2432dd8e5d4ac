//! The hooks, and what the host notices with them.

use splitlock_common::{HookSet, Mode, authority::authorities};

use super::super::facts::{
    Check, DetectionFacts, HookRow, Hooks, HowKnown, RunningAgent, TracefsState,
};
use crate::{
    cli::doctor::DoctorOptions,
    detection::{Monitor, evidence::Source},
    host::Host,
    intake::kernel_log::Batch,
    probes::{Probe, catalogue::Via, meaning, plan::Refusal},
    start,
};

/// The hooks and the mode: as they were attached, else as the agent that runs has them, else as
/// planned.
pub fn weigh(
    options: &DoctorOptions,
    host: &Host,
    tracefs: &TracefsState,
    tried: Result<(Vec<Probe>, Monitor), String>,
    kernel_log: &Check,
    history: Option<&Batch>,
    agent: &RunningAgent,
) -> (Hooks, DetectionFacts) {
    let reported = agent.view.as_ref().is_some_and(|view| view.reported);
    let version = host.kernel_version();
    let failure = match tried {
        Ok((probes, monitor)) => {
            let detection = detection(&monitor, reported);
            let rows = probes
                .iter()
                .map(|probe| row(probe, version, detection.mode))
                .collect();
            let hooks = Hooks {
                known: HowKnown::Attached,
                failure: None,
                rows,
            };
            return (hooks, detection);
        }
        Err(failure) => failure,
    };
    let (probes, planned) = planned(options, host, kernel_log);
    let monitor = start::monitor(host, history, &probes);
    let mut detection = detection(&monitor, reported);
    // Another kernel's agent is another host's.
    if let Some(view) = &agent.view
        && view.kernel == host.kernel_release
    {
        let mode = Mode::ALL.into_iter().find(|mode| mode.name() == view.mode);
        let source = Source::ALL
            .into_iter()
            .find(|source| source.name() == view.source);
        if let (Some(mode), Some(source)) = (mode, source) {
            (detection.mode, detection.source) = (mode, source);
        }
        (detection.sees_user, detection.sees_guest) = (view.sees_user, view.sees_guest);
        let hooks = Hooks {
            known: HowKnown::Agent,
            failure: Some(failure),
            rows: view.hooks.clone(),
        };
        return (hooks, detection);
    }
    // Nobody knows whether the plan holds; that nothing is trapped does not depend on it.
    for sees in [&mut detection.sees_user, &mut detection.sees_guest] {
        *sees = sees.filter(|sees| !sees);
    }
    let rows = probes
        .iter()
        .zip(planned)
        .map(|(probe, planned)| {
            let mut row = row(probe, version, detection.mode);
            if *tracefs == TracefsState::Closed {
                row.refused.iter_mut().for_each(say_closed);
            }
            HookRow {
                via: None,
                planned,
                ..row
            }
        })
        .collect();
    let hooks = Hooks {
        known: HowKnown::Planned,
        failure: Some(failure),
        rows,
    };
    (hooks, detection)
}

/// What is closed to this user is refused as if it were not there.
fn say_closed(refused: &mut String) {
    if let Some((via, _)) = refused.split_once(": tracefs is not mounted") {
        *refused = format!("{via}: tracefs is root's alone, so that this user cannot tell");
    }
}

/// The hooks as if the first rung of each held, and the names of all its rungs.
fn planned(
    options: &DoctorOptions,
    host: &Host,
    kernel_log: &Check,
) -> (Vec<Probe>, Vec<Vec<String>>) {
    let plan = start::plan(host, &options.counting.hooks);
    let mut hooks = vec![];
    for mut planned in plan.hooks {
        if let Some(reason) = &kernel_log.reason
            && planned.rungs.iter().any(|rung| rung.via == Via::Kmsg)
        {
            planned.rungs.clear();
            planned.refusals.push(Refusal {
                via: Via::Kmsg,
                reason: reason.clone(),
            });
        }
        hooks.push(planned);
    }
    let tried = hooks
        .iter()
        .filter(|planned| !planned.rungs.is_empty())
        .fold(HookSet::empty(), |set, planned| set.with(planned.hook));
    let table = authorities(tried);
    hooks
        .into_iter()
        .map(|planned| {
            let names = planned
                .rungs
                .iter()
                .map(|rung| rung.via.name().to_owned())
                .collect();
            let probe = Probe {
                hook: planned.hook,
                via: planned.rungs.first().map(|rung| rung.via),
                authority: table[planned.hook as usize],
                counts_exits: false,
                refusals: planned.refusals,
                detached: None,
            };
            (probe, names)
        })
        .unzip()
}

fn row(probe: &Probe, version: Option<(u32, u32)>, mode: Mode) -> HookRow {
    HookRow {
        probe: probe.hook.name().to_owned(),
        via: probe.via.map(|via| via.name().to_owned()),
        counts: meaning::counts(probe, version, mode).name().to_owned(),
        planned: vec![],
        refused: probe
            .refusals
            .iter()
            .map(|refusal| format!("{}: {}", refusal.via.name(), refusal.reason))
            .collect(),
    }
}

fn detection(monitor: &Monitor, reported: bool) -> DetectionFacts {
    let found = monitor.detection();
    DetectionFacts {
        mode: found.mode,
        source: found.source,
        armed: found.armed,
        mitigation: monitor.mitigation(),
        sees_user: monitor.sees_user(),
        sees_guest: monitor.sees_guest(reported),
    }
}
