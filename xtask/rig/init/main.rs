//! The init of the kernels that `cargo xtask vm` boots: process 1 of an initramfs.
//!
//! It mounts what a host has mounted, loads modules, asks the agent how its hooks are
//! attached, runs the tests on real events, reports all of it and ends the machine. Or it is a
//! hypervisor of a fleet for as long as the machine runs.

// One definition of orders and reports for their writers and their readers.
#[path = "../../src/vm/protocol.rs"]
mod protocol;

mod agent;
mod benchmark;
mod hypervisor;
mod machine;
mod network;
mod port;
mod test_output;
mod test_program;

use std::{env, fs, process::Command};

use anyhow::{Context as _, Result, bail};

use protocol::{ORDER, Order, Report};

use crate::port::Port;

/// The argument of the process that does the work.
const WORKER: &str = "worker";

fn main() {
    if env::args().nth(1).as_deref() == Some(WORKER) {
        work();
    } else if std::process::id() == 1 {
        if let Err(error) = first_process() {
            eprintln!("rig-init: {error:#}");
        }
        // Process 1 must not end; and without a machine there is nobody left to tell.
        let error = machine::end();
        panic!("rig-init: cannot end the machine: {error:#}");
    } else {
        eprintln!("rig-init: this is the init of the kernels that `cargo xtask vm` boots");
    }
}

/// Process 1 has one more duty than the work: to reap whom no parent waits for.
fn first_process() -> Result<()> {
    machine::mount_all()?;
    network::up("lo")?;
    let worker = Command::new("/init")
        .arg(WORKER)
        .spawn()
        .context("cannot start the worker")?;
    machine::reap_until(worker.id())
}

fn work() {
    let mut port = match Port::open() {
        Ok(port) => port,
        Err(error) => return eprintln!("rig-init: {error:#}"),
    };
    match execute(&port) {
        Ok(()) => port.send(&Report::Done),
        Err(error) => port.send(&Report::Failed {
            error: format!("{error:#}"),
        }),
    }
    port.drain();
}

fn execute(port: &Port) -> Result<()> {
    port.send(&Report::Booted {
        release: machine::release(),
    });
    let order = fs::read(ORDER).with_context(|| format!("cannot read {ORDER}"))?;
    let Order {
        modules,
        tracefs,
        hidden,
        agent_args,
        tests,
        test_args,
        benchmark,
        hypervisor,
        environment,
    } = serde_json::from_slice(&order).with_context(|| format!("{ORDER} is no order"))?;
    if tracefs {
        machine::mount_tracefs()?;
    }
    for folder in &hidden {
        machine::hide(folder)?;
    }
    for module in &modules {
        let error = machine::load_module(&module.file)
            .err()
            .map(|error| format!("{error:#}"));
        let missing = error.is_some() && module.required;
        port.send(&Report::Module {
            file: module.file.clone(),
            error,
        });
        if missing {
            bail!("{} does not load", module.file);
        }
    }
    if !benchmark.is_empty() {
        return benchmark::run(port, &benchmark);
    }
    if let Some(hypervisor) = hypervisor {
        return hypervisor::run(port, &hypervisor, &agent_args);
    }
    port.send(&match agent::snapshot(&agent_args) {
        Ok(snapshot) => Report::Agent { snapshot },
        Err(error) => Report::AgentFailed {
            error: format!("{error:#}"),
        },
    });
    if tests {
        test_program::run(port, &test_args, &environment)?;
    }
    Ok(())
}
