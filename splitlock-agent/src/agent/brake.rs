//! Taking hooks off while the agent runs: because they cost too much, or as somebody asked for it.
//! What is off stays off until the agent is started anew, so that nothing goes to and fro.

use std::{future::pending, thread, time::Instant};

use splitlock_common::{Hook, HookSet, authority::authorities};
use tokio::time::sleep_until;
use tracing::{error, warn};

use super::{Agent, life};
use crate::probes::{
    Detached, Probe,
    overhead::{Budget, Excess, Percent},
    plan::Refusal,
};

/// Looks whether the hooks cost too much.
#[derive(Debug)]
pub struct Brake(Budget);

impl Brake {
    /// Waits for the end of a window; for ever without a limit, so that the agent does not wake up.
    pub async fn is_due(brake: &Option<Self>) {
        match brake {
            Some(Self(budget)) => sleep_until(budget.due().into()).await,
            None => pending().await,
        }
    }
}

impl Agent {
    /// Begins to watch what the hooks cost.
    pub(super) fn release_brake(&mut self, limit: Option<Percent>) {
        self.brake =
            limit.map(|limit| Brake(Budget::new(limit, Instant::now(), self.programs.costs())));
    }

    /// Takes off what cost most, if all together cost too much.
    pub(super) fn brake(&mut self) {
        let Some(Brake(budget)) = &mut self.brake else {
            return;
        };
        let running = self
            .programs
            .costs()
            .filter(|(hook, _)| is_attached(&self.facts.probes, *hook));
        let Some(excess) = budget.judge(Instant::now(), running) else {
            return;
        };
        let Excess { costliest, .. } = excess;
        error!(
            probe = costliest.name(),
            "taken off until the agent is started anew: {excess}"
        );
        self.detach(&[costliest], Detached::Overhead, &excess.to_string());
    }

    /// Takes off all hooks, and goes on to serve what was counted.
    pub(super) fn detach_all(&mut self) {
        let attached: Vec<Hook> = Hook::ALL
            .into_iter()
            .filter(|hook| is_attached(&self.facts.probes, *hook))
            .collect();
        if attached.is_empty() {
            warn!("SIGUSR1: all hooks are off already");
            return;
        }
        error!(
            "SIGUSR1: all hooks are taken off, and nothing more is counted until the agent is started \
             anew; what was counted is served"
        );
        self.detach(&attached, Detached::Request, "SIGUSR1 asked for it");
        self.programs.unload_reader();
    }

    /// Nothing may be counted twice: what others count in the stead of those that go, they count once
    /// no program of these runs any more. What happens in between is counted by nobody.
    fn detach(&mut self, hooks: &[Hook], detached: Detached, why: &str) {
        for probe in &mut self.facts.probes {
            if hooks.contains(&probe.hook)
                && let Some(via) = probe.via.take()
            {
                probe.detached = Some(detached);
                probe.counts_exits = false;
                let reason = format!("taken off: {why}");
                probe.refusals.push(Refusal { via, reason });
            }
        }
        let left = self
            .facts
            .probes
            .iter()
            .filter(|probe| probe.via.is_some())
            .fold(HookSet::empty(), |set, probe| set.with(probe.hook));
        for hook in hooks {
            self.programs.detach(*hook);
        }
        // Longer than a signal takes that follows what one of them has counted.
        life::wait_for_programs();
        thread::sleep(life::PROGRAMS);
        let table = authorities(left);
        for probe in &mut self.facts.probes {
            probe.authority = table[probe.hook as usize];
        }
        if let Err(error) = self.programs.let_count(table) {
            warn!(%error, "the hooks that are left cannot be told what to count now");
        }
        self.monitor.set_attached(left);
    }
}

fn is_attached(probes: &[Probe], hook: Hook) -> bool {
    probes
        .iter()
        .any(|probe| probe.hook == hook && probe.via.is_some())
}
