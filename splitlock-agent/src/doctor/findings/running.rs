//! Is an agent running, and is what it sees what there is to see?

use super::{Finding, RESTART, Severity, attaching::is_left_out};
use crate::doctor::facts::{AgentRights, AgentState, AgentView, Facts, HowKnown, RunningAgent};

pub fn find(facts: &Facts) -> Vec<Finding> {
    let agent = &facts.agent;
    let mut found = vec![];
    found.extend(state(agent));
    if let Some(view) = &agent.view {
        if view.kernel == facts.kernel.release {
            found.extend(behind(facts, view));
            found.extend(left_out(facts, view));
            found.extend(view.rights.iter().flat_map(rights));
        } else {
            found.push(
                Finding::new(
                    "agent_elsewhere",
                    Severity::Warning,
                    format!(
                        "the agent at {} runs on Linux {}, and this host on {}",
                        agent.url, view.kernel, facts.kernel.release
                    ),
                    "what it says is not about this host",
                )
                .advice("run doctor on its host, or name this host's agent with --url"),
            );
        }
    }
    found
}

fn state(agent: &RunningAgent) -> Option<Finding> {
    let RunningAgent {
        url,
        is_expected,
        state,
        ..
    } = agent;
    match state {
        AgentState::Healthy => None,
        AgentState::Unhealthy(answer) => Some(
            Finding::new(
                "agent_unhealthy",
                Severity::Warning,
                format!("{url} answers to /readyz: {answer}"),
                "no agent whose hooks are attached answers there",
            )
            .advice("its log says what is wrong: journalctl -u splitlock-agent")
            .command(RESTART),
        ),
        AgentState::Absent(error) => {
            let severity = if *is_expected {
                Severity::Warning
            } else {
                Severity::Note
            };
            let found = Finding::new(
                "no_agent",
                severity,
                format!("no agent answers at {url}: {error}"),
                "this host's locks are not being counted, unless an agent serves elsewhere",
            )
            .command("systemctl start splitlock-agent");
            Some(if *is_expected {
                found
            } else {
                found.advice("--url names one that serves elsewhere")
            })
        }
    }
}

/// What can be attached now and was not when the agent started.
fn behind(facts: &Facts, view: &AgentView) -> Option<Finding> {
    if facts.hooks.known != HowKnown::Attached {
        return None;
    }
    let late: Vec<&str> = facts
        .hooks
        .rows
        .iter()
        .filter(|row| row.via.is_some())
        .map(|row| row.probe.as_str())
        .filter(|name| {
            view.hooks
                .iter()
                .any(|own| own.probe == *name && own.via.is_none() && !is_left_out(own))
        })
        .collect();
    (!late.is_empty()).then(|| {
        Finding::new(
            "agent_behind",
            Severity::Warning,
            format!(
                "the running agent is without {}, which can be attached now",
                late.join(", ")
            ),
            "what only these hooks see is not being counted; KVM or tracefs may have come after the \
             agent's start, or its rights are fewer",
        )
        .command(RESTART)
    })
}

/// What the running agent could still do, and what it cannot learn for lack of a helper.
fn rights(rights: &AgentRights) -> Vec<Finding> {
    let mut found = vec![];
    if !rights.dropped {
        found.push(
            Finding::new(
                "agent_keeps_rights",
                Severity::Warning,
                format!(
                    "the running agent keeps what it was started with: user {}, capabilities {}",
                    rights.user, rights.capabilities
                ),
                "whoever got into the process that talks HTTP would have them",
            )
            .advice("start it without --privileges=keep and SPLITLOCK_PRIVILEGES"),
        );
    } else if !rights.kept.is_empty() {
        found.push(Finding::new(
            "agent_keeps_some_rights",
            Severity::Note,
            format!(
                "the running agent could not give up all: {}",
                rights.kept.join("; ")
            ),
            "there is a bound less around the process that talks HTTP",
        ));
    }
    if !rights.down.is_empty() {
        found.push(
            Finding::new(
                "agent_without_helpers",
                Severity::Warning,
                format!(
                    "the running agent is without its {}",
                    rights.down.join(", ")
                ),
                "new processes and VMs are named by what the kernel side knows; counts go on",
            )
            .command(RESTART),
        );
    }
    found
}

/// What the running agent's own flags keep from it. Where its hooks stand in for doctor's, they are told
/// of as those.
fn left_out(facts: &Facts, view: &AgentView) -> Option<Finding> {
    if facts.hooks.known == HowKnown::Agent {
        return None;
    }
    let names: Vec<&str> = view
        .hooks
        .iter()
        .filter(|own| is_left_out(own))
        .map(|own| own.probe.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        Finding::new(
            "agent_leaves_out",
            Severity::Warning,
            format!("flags of the running agent leave out {}", names.join(", ")),
            "what only these hooks see is not being counted",
        )
        .advice("start it without --probe and --kvm-exits, and their variables")
    })
}
