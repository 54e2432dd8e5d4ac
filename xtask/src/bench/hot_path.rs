//! The cost of counting an exit, by the agent's benchmark program `hot_path`.

use std::process::Command;

use anyhow::Result;

use super::{
    machine::this_machine,
    peers, program,
    results::{Section, rows},
};
use crate::{
    steps::Steps,
    vm::{self, Measured},
    workspace::Workspace,
};

/// Returns to the VMM in each round: a few seconds of a guest.
const RETURNS: u32 = 300_000;

/// On this machine, in nanoseconds.
pub fn measure(workspace: &Workspace, steps: &mut Steps, rounds: u32) -> Result<Section> {
    let benchmark = steps.run("build the benchmark", || vm::build_benchmark(workspace))?;
    let bpftrace = steps.run("get bpftrace", || Ok(peers::find("bpftrace", "bpftrace")))?;
    let lines = steps.run("measure nanoseconds here", || {
        program::run(
            Command::new(&benchmark)
                .args(["nanoseconds", &rounds.to_string(), &RETURNS.to_string()])
                .args(bpftrace),
        )
    })?;
    Ok(Section {
        key: "hot-path".to_owned(),
        title: "A return to the VMM".to_owned(),
        command: format!("cargo xtask bench hot-path --rounds {rounds}"),
        machine: this_machine(),
        unit: format!(
            "Nanoseconds of a program on `kvm_userspace_exit` by the kernel's BPF run statistics, \
             {RETURNS} returns in each of {rounds} rounds, all programs attached, in another order \
             each round; a good 30 ns of each figure are the measurement"
        ),
        rows: rows(&lines, "nanoseconds", base)?,
    })
}

/// Of an emulated machine, in instructions.
pub fn instructions(machine: &Measured, rounds: u32) -> Result<Section> {
    Ok(Section {
        key: format!("rig-{}", machine.series),
        title: format!("An exit on {}", machine.release),
        command: format!(
            "cargo xtask bench rig --kernel {} --rounds {rounds}",
            machine.series
        ),
        machine: "QEMU's software emulation with `-icount shift=0`, nested SVM".to_owned(),
        unit: "Instructions from one `kvm_exit` to the next, the guest's, KVM's and the VMM's \
               included, one program attached at a time; an empty program's base is nothing \
               attached"
            .to_owned(),
        rows: rows(&machine.lines, "instructions", base)?,
    })
}

fn base(name: &str) -> &'static str {
    if name.starts_with("empty") {
        "nothing attached"
    } else if name.ends_with("classic") || name.starts_with("bpftrace") {
        "empty program, classic"
    } else {
        "empty program, raw"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_compared_with_an_empty_one_of_its_kind() {
        for (name, expected) in [
            ("splitlock-agent, raw", "empty program, raw"),
            ("splitlock-agent, classic", "empty program, classic"),
            ("bpftrace @[pid]", "empty program, classic"),
            ("empty program, raw", "nothing attached"),
        ] {
            assert_eq!(base(name), expected, "{name}");
        }
    }
}
