//! CPU time of a return to the VMM, by the agent's benchmark program `hot_path`, with whole tools at
//! work: the agent, and what people use instead.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{
    machine::this_machine,
    peers, program,
    results::{Section, rows},
};
use crate::{
    build::{self, BuildOptions},
    steps::Steps,
    vm,
    workspace::Workspace,
};

/// Returns to the VMM in each round.
const RETURNS: u32 = 200_000;

/// The agent, and what there is on this machine.
pub fn measure(workspace: &Workspace, steps: &mut Steps, rounds: u32) -> Result<Section> {
    let agent = build::build(workspace, steps, &BuildOptions { release: true })?;
    let benchmark = steps.run("build the benchmark", || vm::build_benchmark(workspace))?;
    let tools = steps.run("get bpftrace and perf", || Ok(tools(&agent)))?;
    let lines = steps.run("measure CPU time", || {
        program::run(
            Command::new(&benchmark)
                .args(["wall", &rounds.to_string(), &RETURNS.to_string()])
                .args(&tools),
        )
    })?;
    Ok(Section {
        key: "wall".to_owned(),
        title: "A return to the VMM with whole tools at work".to_owned(),
        command: format!("cargo xtask bench wall --rounds {rounds}"),
        machine: this_machine(),
        unit: format!(
            "Nanoseconds of CPU from one `kvm_userspace_exit` to the next, guest, KVM and VMM included, \
             {RETURNS} returns in each of {rounds} rounds, one tool at work at a time, in another \
             order each round"
        ),
        rows: rows(&lines, "nanoseconds", |_| "nothing attached")?,
    })
}

/// Pairs of a name and a command with tabs between its words.
fn tools(agent: &Path) -> Vec<String> {
    let serve = ["run", "--web.listen-address", "127.0.0.1:0"];
    let agent = agent.to_string_lossy();
    let mut tools = vec![
        (
            "splitlock-agent",
            [&[&*agent], &serve[..]].concat().join("\t"),
        ),
        (
            "splitlock-agent --kvm-exits=locks",
            [&[&*agent], &serve[..], &["--kvm-exits=locks"]]
                .concat()
                .join("\t"),
        ),
    ];
    if let Some(bpftrace) = peers::find("bpftrace", "bpftrace") {
        const SCRIPT: &str =
            "tracepoint:kvm:kvm_userspace_exit { @[pid, args->reason] = count(); }";
        let words = [&*bpftrace.to_string_lossy(), "-e", SCRIPT].join("\t");
        tools.push(("bpftrace @[pid, args->reason] = count()", words));
    }
    if let Some(perf) = peers::find("perf", "linux-perf") {
        let perf = perf.to_string_lossy();
        let words = [&*perf, "stat", "-a", "-e", "kvm:kvm_userspace_exit"].join("\t");
        tools.push(("perf stat -a -e kvm:kvm_userspace_exit", words));
        let words = [
            &*perf,
            "record",
            "-a",
            "-o",
            "/dev/null",
            "-e",
            "kvm:kvm_userspace_exit",
        ]
        .join("\t");
        // What `perf kvm stat` does with its events.
        tools.push(("perf record -a -e kvm:kvm_userspace_exit", words));
    }
    tools
        .into_iter()
        .flat_map(|(name, words)| [name.to_owned(), words])
        .collect()
}
