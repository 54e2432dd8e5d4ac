//! Is an agent running, and is what it sees what there is to see?

use super::{Finding, RESTART, Severity, attaching::is_left_out};
use crate::doctor::facts::{AgentState, AgentView, Facts, HowKnown, RunningAgent};

pub fn find(facts: &Facts) -> Vec<Finding> {
    let agent = &facts.agent;
    let mut found = vec![];
    found.extend(state(agent));
    if let Some(view) = &agent.view {
        if view.kernel == facts.kernel.release {
            found.extend(behind(facts, view));
            found.extend(left_out(facts, view));
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
                format!("{url} answers to /healthz: {answer}"),
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
