//! `cargo xtask bench`: what the agent costs, beside others in the same run.
//!
//! Each figure is the median of several rounds, with the least and the most. On a busy machine only
//! differences inside one table mean something.

mod chart;
mod footprint;
mod hot_path;
mod machine;
mod page;
mod peers;
mod program;
mod results;
mod subjects;
mod wall;

use anyhow::Result;
use clap::ValueEnum;

pub use self::machine::this_machine;
use self::results::Section;
use crate::{setup, steps::Steps, vm, workspace::Workspace};

#[derive(clap::Args)]
pub struct BenchOptions {
    /// What to measure; by default everything
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Put the tables and the picture into docs/benchmarks.md
    #[arg(long)]
    update_docs: bool,
    /// Rounds
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(5..))]
    rounds: u32,
    /// The kernels of the part `rig`, as for `cargo xtask vm`
    #[arg(long = "kernel", value_name = "KERNEL", default_values = ["6.1", "6.12"])]
    kernels: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Nanoseconds of a program on kvm_userspace_exit of this machine, by BPF run statistics
    HotPath,
    /// CPU time of a return to the VMM with whole tools at work
    Wall,
    /// Instructions of a program on kvm_exit, on emulated machines that count them
    Rig,
    /// Time to readiness and memory of the agent
    Footprint,
    /// A storm of traps: what the agent needs, and how fast it answers
    Storm,
    /// Scrapes and memory with many subjects
    Scrapes,
    /// Memory with many more subjects than the limit
    Bounds,
}

/// Measures, prints the tables and keeps them if asked to.
pub fn bench(workspace: &Workspace, steps: &mut Steps, options: &BenchOptions) -> Result<()> {
    let BenchOptions {
        parts,
        update_docs,
        rounds,
        kernels,
    } = options;
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    setup::setup(workspace, steps)?;
    let mut sections: Vec<Section> = vec![];
    if wanted(Part::HotPath) {
        sections.push(hot_path::measure(workspace, steps, *rounds)?);
    }
    if wanted(Part::Wall) {
        sections.push(wall::measure(workspace, steps, *rounds)?);
    }
    if wanted(Part::Rig) {
        for machine in vm::measure(workspace, steps, kernels, *rounds)? {
            sections.push(hot_path::instructions(&machine, *rounds)?);
        }
    }
    if wanted(Part::Footprint) {
        sections.push(footprint::measure(workspace, steps, *rounds)?);
    }
    for (part, measure) in [
        (Part::Storm, &subjects::STORM),
        (Part::Scrapes, &subjects::SCRAPES),
        (Part::Bounds, &subjects::BOUNDS),
    ] {
        if wanted(part) {
            sections.push(measure.take(workspace, steps, *rounds)?);
        }
    }
    for section in &sections {
        println!("\n{section}");
    }
    if *update_docs {
        page::update(&workspace.root.join("docs"), &sections)?;
    }
    Ok(())
}
